"""Weights are measured again on the very data that their record names, or not at all."""

import pytest

from common import layout
from common.errors import DataAbsent
from common.measure import _print_classes, recorded_data
from common.passports import file_sha256


@pytest.mark.parametrize("there", ["official", "resized"])
def test_a_record_is_measured_again_on_its_own_edition_only(toy, record, there):
    folder = toy.put_data(layout.DATA, there)
    files = {path.name: file_sha256(path) for path in folder.iterdir()}
    named = {"dataset": "shapes", "files": files, "split": "ab"}
    own = record(data=named | {"edition": there})
    assert recorded_data(toy.paper(), own, None).folder == folder
    other = record(data=named | {"edition": "bundle", "files": {"shapes.npz": "cd"}})
    with pytest.raises(
        DataAbsent, match=rf"shapes \({there}\) is in .*; seed 0 of plain was .* other files \(bundle\)"
    ):
        recorded_data(toy.paper(), other, None)


def test_classes_are_told_by_name_with_their_examples_and_what_they_are_mistaken_for(capsys):
    _print_classes([[8, 2, 0], [0, 0, 0], [1, 4, 15]], ["corn", "oats", "woods"])
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for expected in ("corn 10 80.0 % oats (2)", "oats 0 not scored –", "woods 20 75.0 % oats (4)"):
        assert expected in lines
    assert "Confusion matrix" in lines and "woods 1 4 15" in lines


def test_a_matrix_too_wide_for_a_terminal_is_not_printed(capsys):
    _print_classes([[1] * 11] * 11, [f"class {number}" for number in range(11)])
    assert "Confusion matrix" not in capsys.readouterr().out
