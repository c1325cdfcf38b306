"""Weights are measured again on the very data that their record names, or not at all."""

import pytest

from common import layout
from common.errors import DataAbsent
from common.measure import recorded_data
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
