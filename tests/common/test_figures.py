"""What a figure is given: the paper's finished records, and the data of any of its datasets."""

from types import SimpleNamespace

import pytest
import yaml

from common.base import paths
from common.base.errors import UsageError
from common.claims.papers import Paper
from common.pages import figures

FIGURE = "curve"


@pytest.fixture
def draw(toy, monkeypatch):
    """Lets `draw_all` draw one figure by a given function."""
    (paths.PAPERS / "alpha_2001").mkdir(parents=True)
    (paths.PAPERS / "alpha_2001" / "figures.py").touch()
    toy.paper()

    def draw(function):
        monkeypatch.setattr(Paper, "module", lambda paper, name: SimpleNamespace(FIGURES={FIGURE: function}))
        return figures.draw_all()

    return draw


def seen(draw) -> list:
    """What a figure's function was given."""
    given = []
    draw(lambda *words: given.extend(words))
    return given


def another_dataset(toy):
    """A dataset in the passports of the paper itself, with the files of the common one."""
    content = yaml.safe_load((paths.PASSPORTS / "shapes.yaml").read_text()) | {"folder": "sizes"}
    passports = paths.PAPERS / "alpha_2001" / "passports"
    passports.mkdir()
    (passports / "sizes.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    toy.put_data(paths.DATA).rename(paths.DATA / "sizes")


def test_a_figure_gets_the_finished_records_and_the_data_it_names(toy, record, failed_record, draw):
    toy.publish(record(0), failed_record(1))
    another_dataset(toy)
    toy.put_data(paths.DATA, "resized")
    records, data = seen(draw)
    assert records == [record(0)]
    assert [(data(name).dataset, data(name).edition) for name in ("shapes", "sizes")] == [
        ("shapes", "resized"),
        ("sizes", "official"),
    ]


def test_data_that_is_absent_or_damaged_is_none(toy, record, draw):
    toy.publish(record(0))
    assert seen(draw)[1]("shapes") is None
    (toy.put_data(paths.DATA) / "test.bin").write_bytes(b"")
    assert seen(draw)[1]("shapes") is None


def test_data_is_looked_for_once_and_only_when_asked_for(toy, record, draw, monkeypatch):
    toy.publish(record(0))
    toy.put_data(paths.DATA)
    located = []
    locate = figures.locate
    monkeypatch.setattr(figures, "locate", lambda passport, _: located.append(passport.name) or locate(passport))
    data = seen(draw)[1]
    assert located == []
    assert data("shapes") is data("shapes")
    assert located == ["shapes"]


def test_a_dataset_that_nobody_knows_is_a_mistake_of_the_figure(toy, record, draw):
    toy.publish(record(0))
    with pytest.raises(UsageError, match="Did you mean shapes?"):
        seen(draw)[1]("shape")


def test_a_figure_that_cannot_be_drawn_is_left_as_it_is(toy, record, draw):
    toy.publish(record(0))
    path = paths.FIGURES / "alpha_2001" / f"{FIGURE}.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"as it was")
    assert draw(lambda records, data: None) == [paths.FIGURES / figures.FOREST]
    assert path.read_bytes() == b"as it was"


def test_without_records_nothing_is_drawn(draw):
    assert seen(draw) == []
