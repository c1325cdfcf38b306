"""How published weights are measured and figures drawn again."""

from importlib.metadata import version
from types import SimpleNamespace

import pytest
import torch

from common.base import paths
from common.base.errors import DataAbsent, DataError, MachineError
from common.claims.papers import Paper
from common.data.passports import LocatedData
from common.publishing import verify
from common.publishing.verify import PASSED, SKIPPED, WRONG
from common.training.evaluation import Measured
from common.training.records import Weights
from common.training.weights import save_weights, weights_hash

FILES = {"train.bin": "cd" * 32}  # as the made-up records have them


@pytest.fixture
def records(toy, record):
    """Of three records with published weights, one that was measured on another edition."""
    made = [record(0), record(0, variant="wide"), record(1, edition="bundle")]
    made[2] = made[2].model_copy(update={"data": made[2].data.model_copy(update={"files": {}})})
    for number, one in enumerate(made):
        weights, file = {"w": torch.full((1,), float(number))}, f"results/weights/{number}.safetensors"
        save_weights(weights, toy.root / file, f"alpha_2001/{one.variant}/seed-{one.seed}")
        named = Weights(sha256=weights_hash(weights), file=file)
        toy.publish(one.model_copy(update={"weights": named, "remeasured": one.metrics}))
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


def test_what_another_processor_adds_up_otherwise_is_not_wrong(toy, located, monkeypatch):
    """PSNR is a mean of sums of float32: on two kinds of processor they differ in the sixth digit."""

    def measured(paper, record, data, file) -> Measured:
        return Measured({p: {m: value * (1 + 2e-6) for m, value in of.items()} for p, of in record.metrics.items()})

    monkeypatch.setattr(verify, "measure_record", measured)
    assert states(toy) == [SKIPPED, PASSED, PASSED]


def test_weights_that_are_not_the_records_are_wrong_without_any_data(toy, located):
    zero, one = (toy.root / f"results/weights/{number}.safetensors" for number in (0, 1))
    zero.write_bytes(one.read_bytes())
    one.write_bytes(b"")
    said = [
        (state, text) for state, what, text in verify._weights(toy.paper(), None) if not what.endswith("2.safetensors")
    ]
    assert said[:2] == [
        (WRONG, "holds weights other than those of alpha_2001/plain/seed-0"),
        (WRONG, "says that it is of alpha_2001/wide/seed-0, but it is published as alpha_2001/plain/seed-0"),
    ]
    assert said[2][0] == WRONG and "is not a whole safetensors file" in said[2][1]


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


@pytest.fixture
def figure(toy, monkeypatch):
    """The findings of a paper that has one figure, where this is committed and that is drawn."""
    toy.paper().folder.joinpath("figures.py").touch()
    monkeypatch.setattr(Paper, "module", lambda paper, name: SimpleNamespace(FIGURES={"curve": None}))
    path = paths.FIGURES / "alpha_2001" / "curve.png"
    path.parent.mkdir(parents=True)

    def figure(there: bytes, drawn: bytes | None, pins: str = "") -> tuple[str, str]:
        path.write_bytes(there)
        (toy.root / "requirements.txt").write_text(pins)
        monkeypatch.setattr(verify, "draw_figures", lambda paper, data_dir: {path: drawn})
        ((state, what, text),) = verify._figures(toy.paper(), None)
        assert what == "figure results/figures/alpha_2001/curve.png"
        return state, text

    return figure


def test_a_figure_comes_out_the_same_or_is_wrong(figure):
    pins = f"matplotlib=={version('matplotlib')}\npillow=={version('pillow')}  # pictures\n"
    assert figure(b"one", b"one", pins) == (PASSED, "drawn again byte for byte")
    assert figure(b"one", b"other", pins)[0] == WRONG
    assert figure(b"one", None, pins) == (SKIPPED, "what it is drawn from is not here")


def test_a_figure_drawn_by_another_matplotlib_may_come_out_otherwise(figure):
    pins = f"matplotlib==1.0.0\npillow=={version('pillow')}\n"
    assert figure(b"one", b"one", pins)[0] == PASSED
    said = f"comes out with other bytes, but drawn by matplotlib {version('matplotlib')}, not 1.0.0"
    assert figure(b"one", b"other", pins) == (SKIPPED, said)


# ---- determinism -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "word"), [(["a", "a"], PASSED), (["a", "b"], WRONG)])
def test_two_smoke_runs_that_differ_are_wrong(toy, monkeypatch, bits, word):
    ends = iter(bits)
    monkeypatch.setattr(verify, "_smoke_bits", lambda paper: next(ends))
    assert [finding[0] for finding in verify._determinism(toy.paper(), None)] == [word]


@pytest.mark.parametrize(("why", "faults"), [("It does not.", []), (None, ["paper.yaml: why: is missing, though"])])
def test_records_without_a_reason_are_wrong(toy, record, monkeypatch, why, faults):
    monkeypatch.setattr(verify, "paper_faults", lambda paper: [])
    toy.publish(record(0))
    paper = toy.paper(content=toy.paper_content() | ({"why": why} if why else {}))
    found = [text for state, _, text in verify._records(paper, None) if state == WRONG]
    assert [text[: len(fault)] for text, fault in zip(found, faults, strict=True)] == faults
