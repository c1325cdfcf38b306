"""How published weights are measured again."""

import pytest

from common.base import paths
from common.base.errors import DataAbsent, DataError, MachineError
from common.data.passports import LocatedData
from common.publishing import verify
from common.publishing.verify import PASSED, SKIPPED, WRONG
from common.training.evaluation import Measured

FILES = {"train.bin": "cd" * 32}  # as the made-up records have them


@pytest.fixture
def records(toy, record):
    """Of three records with published weights, one that was measured on another edition."""
    made = [record(0), record(0, variant="wide"), record(1, edition="bundle")]
    made[2] = made[2].model_copy(update={"data": made[2].data.model_copy(update={"files": {}})})
    for number, one in enumerate(made):
        weights = one.weights.model_copy(update={"file": f"results/weights/{number}.safetensors"})
        toy.publish(one.model_copy(update={"weights": weights, "remeasured": one.metrics}))
    return made


@pytest.fixture
def located(monkeypatch, records):
    """The datasets that verify has looked for; data is found and weights measure what their record says."""
    asked = []

    def find(passport, data_dir):
        asked.append(passport.name)
        return LocatedData("shapes", "official", paths.DATA, FILES)

    monkeypatch.setattr(verify, "real_data", find)
    monkeypatch.setattr(verify, "measure_record", lambda paper, record, data, file: Measured(record.metrics))
    return asked


def states(toy) -> list[str]:
    return [state for state, *_ in verify._weights(toy.paper(), None)]


def test_a_dataset_is_located_once_and_weights_of_other_files_skipped(toy, located):
    assert states(toy) == [SKIPPED, PASSED, PASSED] and located == ["shapes"]


def test_other_numbers_are_wrong(toy, located, monkeypatch):
    other = Measured({"last": {"test_error": 7.0}})
    monkeypatch.setattr(verify, "measure_record", lambda paper, record, data, file: other)
    assert states(toy) == [SKIPPED, WRONG, WRONG]


@pytest.mark.parametrize("error", [DataAbsent, MachineError])
def test_data_that_cannot_be_had_is_skipped(toy, located, monkeypatch, error):
    def find(*_):
        raise error("not here")

    monkeypatch.setattr(verify, "real_data", find)
    assert states(toy) == [SKIPPED] * 3


def test_damaged_data_is_no_finding_but_the_end(toy, located, monkeypatch):
    def find(*_):
        raise DataError("altered")

    monkeypatch.setattr(verify, "real_data", find)
    with pytest.raises(DataError, match="altered"):
        verify._found("weights", lambda: verify._weights(toy.paper(), None))
