"""What is committed under results/ is what the records give, byte for byte."""

import os

import pytest

from common import figures, layout
from common.measure import measure_record, with_weights
from common.papers import find_papers, load_paper
from common.passports import locate
from common.records import published_records
from common.tables import tables

REAL_DATA = pytest.mark.skipif(not os.environ.get("REPRO_DATA"), reason="needs real data: set REPRO_DATA to its folder")


def test_committed_tables_are_rebuilt_byte_for_byte():
    for path, content in tables().items():
        assert path.read_text(encoding="utf-8") == content, f"{path}: run `bash reproduce.sh table`"


def test_committed_figures_are_drawn_again_byte_for_byte(tmp_path, monkeypatch):
    committed = {path.relative_to(layout.FIGURES): path for path in layout.FIGURES.rglob("*.png")}
    root = layout.ROOT
    monkeypatch.setattr(layout, "ROOT", tmp_path)
    monkeypatch.setattr(layout, "FIGURES", tmp_path / "figures")
    (tmp_path / "results").symlink_to(root / "results")
    drawn = {path.relative_to(tmp_path / "figures"): path for path in figures.draw_all()}
    assert drawn and drawn.keys() <= committed.keys()
    for name, path in drawn.items():
        assert path.read_bytes() == committed[name].read_bytes(), name


def test_every_published_record_is_a_full_run_of_committed_sources():
    records = published_records()
    assert records
    for record in records:
        assert record.preset == "full" and not record.modified and not record.standin
        assert record.code.committed and record.code.commit
        assert record.status == "failed" or record.remeasured


def test_every_variant_has_all_its_seeds_and_one_set_of_weights():
    groups = {}
    for record in published_records():
        groups.setdefault((record.paper, record.variant, record.data.edition), []).append(record)
    for group in groups.values():
        assert [record.seed for record in group] == list(range(len(group)))
        assert sum(1 for record in group if record.weights and record.weights.file) == 1


def each_paper() -> list:
    """Papers that need more than a CPU to train are slow to measure on one, too."""

    def marks(name: str) -> list:
        return [pytest.mark.slow] if any(claim.needs.device != "cpu" for claim in load_paper(name).claims) else []

    return [pytest.param(name, marks=marks(name)) for name in find_papers()]


@REAL_DATA
@pytest.mark.parametrize("name", each_paper())
def test_published_weights_give_the_records_numbers(name):
    paper = load_paper(name)
    for record in with_weights(paper):
        measured = measure_record(paper, record, locate(paper.passport(record.variant))).metrics
        assert measured == record.remeasured
        for protocol, values in measured.items():
            recorded = record.metrics[protocol]
            assert {metric: recorded[metric] for metric in values if metric in recorded} == {
                metric: value for metric, value in values.items() if metric in recorded
            }
