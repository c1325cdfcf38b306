"""What `bench --keep` measured, on the front page, on the page and in its figure."""

import json

import pytest

from common.base import paths
from common.base.errors import UsageError, UserError
from common.claims.comparison import all_comparisons
from common.pages import tables
from common.pages.figures import GROWTH, draw_overall
from common.pages.pages import speed_block
from common.pages.speed import Grown, Speed, Timed, growth_figure, kept
from common.publishing import bench, growth
from common.training.records import RecordFile


def timed(job: str, ratio: float) -> Timed:
    numbers = {"samples_per_s": 10.0, "share": 0.25, "peak_memory_mb": 1.0, "whole_s": 1.0}
    return Timed(paper="alpha_2001", job=job, ratio=ratio, whole="all", instruction_set="AVX2", **numbers)


def measured(instruction_set: str = "AVX2", seconds: tuple[float, ...] = (1.0, 1.5), **fields) -> Speed:
    grown = Grown(work="a step", size="pictures", sizes=[1, 2], seconds=list(seconds), expected="proportional")
    about = {
        "date": "2026-01-02",
        "commit": "0123456789",
        "device": "CPU",
        "processor": "CPU",
        "torch": "2.15.0",
        "limited": False,
    }
    contents = {"jobs": [timed("step", 1.5)], "growth": [grown]}
    return Speed(instruction_set=instruction_set, **(about | contents | fields))


def test_the_front_page_has_a_column_for_each_kind_of_machine(world):
    other = measured("AVX512 with avx512_bf16", limited=True, jobs=[timed("step", 3.0), timed("test", 2.0)])
    block = speed_block(all_comparisons(), [measured(), other])
    cells = [[cell.strip() for cell in line.split("|")[2:-1]] for line in block.splitlines() if line.startswith("|")]
    assert cells[0] == ["job", "AVX2", "AVX512 with avx512_bf16"]
    assert cells[2:] == [["step", "1.5 (25%)", "3.0 (25%)"], ["test", "–", "2.0 (25%)"]]
    assert "AVX2 (CPU): 2026-01-02, commit 0123456, torch 2.15.0" in block
    assert "avx512_bf16 (CPU, limited to it)" in block


def test_what_is_kept_is_drawn_and_shown(world):
    assert kept() == [] and growth_figure([]) is None
    front = paths.ROOT / "README.md"
    front.write_text("\n".join([front.read_text(), *tables.markers("speed")]))
    assert "Not measured yet." in tables.tables()[front]
    file = measured().path()
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(measured().model_dump()))
    assert (file.name, kept()) == ("avx2.json", [measured()])
    tables.rebuild()
    assert paths.FIGURES / GROWTH in draw_overall()
    files = tables.tables()
    assert f"(results/figures/{GROWTH})" in files[front]
    assert f'<img src="figures/{GROWTH}"' in files[paths.RESULTS / "index.html"]


def test_a_panel_has_a_line_for_each_machine_and_one_for_proportion():
    figure = growth_figure([measured(), measured("AVX512", (0.5, 0.75))])
    (panel,) = figure.axes
    assert [list(line.get_ydata()) for line in panel.lines] == [[1.0, 1.5], [0.5, 0.75], [1.0, 2.0]]
    assert panel.get_xlabel() == "pictures"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["AVX2 (CPU)", "AVX512 (CPU)"]


def test_what_is_measured_is_kept_as_it_comes(world, monkeypatch):
    """Whatever ends it early, a full disk or somebody in a hurry."""
    monkeypatch.setattr(bench.provenance, "ask_git", lambda *words: {"rev-parse": "0123", "status": ""}[words[0]])

    def interrupted(paper: str, job: bench.Job) -> Timed:
        if job.name == "third":
            raise KeyboardInterrupt
        return timed(job.name, 2.0)

    jobs = [bench.Job(name, int, int, 1.0, 1, "all", 1) for name in ("first", "second", "third")]
    monkeypatch.setattr(bench, "_jobs", lambda paper: jobs)
    monkeypatch.setattr(bench, "_time", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bench.keep_speed(["alpha_2001"])
    (left,) = kept()
    assert ([job.job for job in left.jobs], left.growth) == (["first", "second"], [])


def test_nothing_is_kept_of_sources_that_are_not_committed(monkeypatch):
    said = {"rev-parse": "0123", "status": " M common/base/paths.py"}
    monkeypatch.setattr(bench.provenance, "ask_git", lambda *words: said[words[0]])
    with pytest.raises(UsageError, match="not committed"):
        bench.keep_speed([])


def test_nothing_is_kept_where_git_says_nothing(monkeypatch):
    def failing(*words: str) -> str:
        raise bench.provenance.GitFailed("fatal: dubious ownership")

    monkeypatch.setattr(bench.provenance, "ask_git", failing)
    with pytest.raises(UsageError, match="dubious ownership"):
        bench.keep_speed([])


def test_the_copies_of_records_are_records_in_their_places():
    """In growth with the number of records: each under a seed of its own."""
    copies = dict(growth.islice(growth._copies(), 150))
    assert len(copies) == 150
    for path, content in copies.items():
        assert RecordFile.model_validate_json(json.dumps(content)).root.path() == paths.ROOT / path


def test_growth_is_measured_at_every_size():
    grown = growth.Growth("a step", "pictures", (1, 2, 4), lambda size: size / 2).measured()
    assert (grown.sizes, grown.seconds) == ([1, 2, 4], [0.5, 1.0, 2.0])


def test_processes_share_the_threads_of_one(monkeypatch):
    """Else two would be slower for want of cores."""
    given = []
    monkeypatch.setattr(growth, "_run", lambda *words, threads: given.append(threads))
    for words in ((), ("--nproc", "1"), ("--nproc", "2"), ("--nproc", "4")):
        growth._command("resnet", *words, runs="runs")
    assert given == [growth.THREADS, growth.THREADS, 1, 1]


def test_a_command_that_fails_is_told_in_its_own_words():
    with pytest.raises(UserError, match="no variant 'none'") as told:
        growth.seconds_of_command("lenet5_1998", "--variant", "none")
    assert told.value.code == UsageError.code


def test_a_machine_keeps_its_colour_where_it_lacks_a_work():
    other = Grown(work="another", size="pictures", sizes=[1], seconds=[1.0], expected="constant")
    first, second = growth_figure([measured(growth=[]), measured("AVX512", growth=[*measured().growth, other])]).axes
    assert {line.get_color() for line in (first.lines[0], second.lines[0])} == {"C1"}
    assert [list(line.get_ydata()) for line in second.lines] == [[1.0], [1.0]]


def test_a_gpu_has_a_column_of_its_own():
    gpu = measured(device="Tesla T4")
    assert (gpu.kind, gpu.machine, gpu.path().name) == ("Tesla T4", "Tesla T4 (CPU)", "tesla-t4.json")
