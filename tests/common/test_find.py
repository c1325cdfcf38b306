"""Where a run's data comes from, and what is said where it cannot be had."""

import pytest

from common.base import paths
from common.base.errors import DataAbsent, DataError, MachineError, UsageError
from common.data import find
from common.data.find import available, find_data, real_data


@pytest.fixture
def absent(toy, tmp_path):
    (tmp_path / "disk").mkdir()
    return toy.passport(), tmp_path / "disk"


def test_advice_that_is_followed_finds_the_data(toy, absent):
    passport, disk = absent
    advice = r"Put it into data/shapes, or name the folder that holds shapes/ with --data-dir\.$"
    with pytest.raises(DataAbsent, match=advice):
        find_data(passport, "full", "real", disk)
    folder = toy.put_data(disk)
    assert folder.name == "shapes"
    assert find_data(passport, "full", "real", disk).folder == folder


def test_what_smoke_cannot_have_is_refused_and_not_passed_over(absent):
    passport, disk = absent
    with pytest.raises(UsageError, match="--preset smoke is a test on the stand-in: leave out --data real"):
        find_data(passport, "smoke", "real", disk)
    with pytest.raises(DataError, match="nowhere: no such folder"):
        find_data(passport, "smoke", "auto", disk / "nowhere")


def test_of_several_those_that_can_be_had_are_given(toy, absent, monkeypatch, capsys):
    passport, disk = absent
    with pytest.raises(DataAbsent, match="cannot be fetched|not found here"):
        available([passport, passport], disk)
    toy.put_data(disk)
    other = passport.model_copy(update={"name": "circles", "folder": "circles"})
    assert list(available([other, passport], disk)) == ["shapes"]
    assert "left out: " in capsys.readouterr().err
    monkeypatch.setattr(find, "real_data", lambda passport, data_dir: (_ for _ in ()).throw(MachineError("disk full")))
    with pytest.raises(MachineError, match="disk full"):
        available([passport], disk)


def test_only_absent_data_becomes_the_stand_in_and_only_where_a_run_may(toy, absent, capsys):
    passport, disk = absent
    assert find_data(passport, "full", "auto", disk).edition == paths.STANDIN
    assert "STAND-IN DATA" in capsys.readouterr().err
    with pytest.raises(DataAbsent):
        real_data(passport, disk)
    (toy.put_data(disk) / "test.bin").write_bytes(b"")
    with pytest.raises(DataError, match="is not what its passport says"):
        find_data(passport, "full", "auto", disk)
    assert find_data(passport, "smoke", "auto", disk).standin and find_data(passport, "full", "standin", disk).standin
