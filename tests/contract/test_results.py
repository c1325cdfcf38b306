"""What is committed under results/ is what the records give, byte for byte."""

import pytest

from common.base import paths
from common.base.errors import DataAbsent
from common.claims.comparison import all_comparisons
from common.claims.papers import find_papers, load_paper
from common.pages import figures
from common.pages.tables import tables
from common.publishing.checks import paper_faults
from common.publishing.frozen import frozen_faults
from common.publishing.history import NoHistory, by_commit, edit_faults, source_faults
from common.publishing.measure import measure_record, recorded_data, with_weights
from common.training.records import published_records
from tests.real_data import real_data

WITH_WEIGHTS = [pair for name in find_papers() for pair in with_weights(load_paper(name)).items()]


def test_committed_tables_are_rebuilt_byte_for_byte():
    for path, content in tables().items():
        assert path.read_text(encoding="utf-8") == content, f"{path}: run `bash reproduce.sh table`"


def test_committed_figures_are_drawn_again_byte_for_byte(tmp_path, monkeypatch):
    committed = {path.relative_to(paths.FIGURES): path for path in paths.FIGURES.rglob("*.png")}
    root = paths.ROOT
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "FIGURES", tmp_path / "figures")
    (tmp_path / "results").symlink_to(root / "results")
    drawn = {path.relative_to(tmp_path / "figures"): path for path in figures.draw_all()}
    assert drawn and drawn.keys() <= committed.keys()
    for name, path in drawn.items():
        assert path.read_bytes() == committed[name].read_bytes(), name


@pytest.mark.parametrize("paper", find_papers())
def test_published_records_and_weights_are_what_they_must_be(paper):
    assert paper_faults(load_paper(paper)) == []


@pytest.mark.parametrize("paper", find_papers())
def test_published_records_are_what_the_history_says(paper):
    paper = load_paper(paper)
    try:
        faults = [
            *frozen_faults(paper),
            *edit_faults(paper),
            *(fault for commit, records in by_commit(paper).items() for fault in source_faults(paper, commit, records)),
        ]
    except NoHistory as why:
        pytest.skip(str(why))
    assert faults == []


def test_every_measured_paper_says_why_it_differs():
    why = {of.paper.name: of.paper.why for of in all_comparisons() if of.attempted}
    assert why and [f"papers/{paper}/paper.yaml: why: is missing" for paper, said in why.items() if not said] == []


def test_what_is_published_is_of_the_papers_that_are_here():
    published = {record.paper for record in published_records()}
    assert published and published <= set(find_papers())
    assert {folder.name for folder in paths.WEIGHTS.iterdir()} <= published


def by_speed() -> list:
    """Large weights, and those of papers that need more than a CPU to train, are slow to measure on one."""
    needs_more = {name for name in find_papers() if any(c.needs.device != "cpu" for c in load_paper(name).claims)}
    return [
        pytest.param(file, record, marks=pytest.mark.slow if slow else (), id=file)
        for file, record in WITH_WEIGHTS
        for slow in [record.weights.float16 or record.paper in needs_more]
    ]


@pytest.mark.parametrize(("file", "record"), by_speed())
def test_published_weights_give_the_records_numbers(file, record):
    paper = load_paper(record.paper)
    try:
        real_data(paper.passport(record.variant))
        data = recorded_data(paper, record, None)
    except DataAbsent as absent:
        pytest.skip(str(absent))
    assert measure_record(paper, record, data, paths.ROOT / file).metrics == record.metrics_of_file
