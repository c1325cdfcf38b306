"""A new paper is a new folder and nothing else.

A copy of the ground without any paper gets one, whose data this test makes; every command must
then know it. The tests share the copy: each leaves it as it was.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.contract.helpers import ROOT, Ended, assert_told, content, make_toy_repository, run


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_toy_repository(tmp_path_factory.mktemp("toy") / "repository")


@pytest.fixture(scope="module")
def published(root):
    """The same with three seeds run and published."""
    ended = tell(root, "toy", "--seeds", "0,1,2", "--check")
    assert ended.code == 0 and "reproduced" in ended.out, ended.err
    ended = tell(root, "publish", "toy")
    assert ended.code == 0 and ended.err.count("published results/records/toy/line/official/seed-") == 3
    assert ended.complaint[-1] == "toy: 4 new in results/; tables and figures rebuilt."
    return root


def tell(root, *words, **how) -> Ended:
    return run(*words, root=root, log=root.parent / "log", **how)


def told_json(root, *words):
    ended = tell(root, *words, "--json")
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


@contextlib.contextmanager
def changed(path, change):
    """A file with other bytes, for a while."""
    before = path.read_bytes()
    path.write_bytes(change(before))
    try:
        yield
    finally:
        path.write_bytes(before)


@contextlib.contextmanager
def without_data(root):
    (root / "data").rename(root.parent / "data")
    try:
        yield
    finally:
        (root.parent / "data").rename(root / "data")


def results(root):
    return content(root / "results")


# ---- before anything is published ---------------------------------------------------------------


def test_no_paper_is_named_in_the_ground():
    names = {re.match("[a-z]+", folder.parent.name).group() for folder in ROOT.glob("papers/*/paper.yaml")}
    files = [file for file in (ROOT / "common").rglob("*") if file.suffix in (".py", ".html", ".yaml")]
    assert names and files
    assert not [(file, name) for file in files for name in names if name in file.read_text().lower()]


def test_the_front_door_lists_it(root):
    words = ["bash", root / "reproduce.sh"]
    done = subprocess.run(words, env=os.environ | {"REPRO_PYTHON": sys.executable}, capture_output=True, text=True)
    assert done.returncode == 0
    assert "toy test error – (10.0) not attempted yes ~6.0 min" in " ".join(done.stdout.split())
    ended = tell(root, "list", "toy")
    assert ended.code == 0 and "line (default)" in ended.out and "clouds: official" in ended.out
    (entry,) = told_json(root)
    assert (entry["paper"], entry["variant"], entry["data"], entry["minutes"]) == ("toy", "line", "official", None)


def test_help_shows_the_fields_of_its_recipe(root):
    ended = tell(root, "toy", "--help")
    assert (
        ended.code == 0
        and "--epochs" in ended.out
        and "(Sec. 2)  [default: 0.1]" in ended.out
        and "--seeds" in ended.out
    )


def test_its_smoke_run_needs_no_data_and_settles_nothing(root, tmp_path):
    ended = tell(root, "toy", "--preset", "smoke", "--runs-dir", tmp_path)
    assert ended.code == 0 and "STAND-IN DATA" in ended.err
    ended = tell(root, "toy", "--preset", "smoke", "--runs-dir", tmp_path, "--check")
    assert ended.code == 1 and "--check: only a full, unmodified run on real data" in ended.complaint[-1]


def test_weights_of_a_modified_run_are_measured_under_its_recipe(root, tmp_path):
    assert tell(root, "toy", "--epochs", "5", "--runs-dir", tmp_path).code == 0
    (weights,) = tmp_path.rglob("weights.safetensors")
    ended = tell(root, "eval", "toy", "--weights", weights)
    assert ended.code == 0
    assert ended.complaint[-1].endswith("is measured under the recipe that it was trained with: epochs 5, not 20.")


def test_its_train_and_eval_are_programs(root, tmp_path):
    ended = tell(root, "--preset", "smoke", "--runs-dir", tmp_path, module="papers.toy.train")
    assert ended.code == 0, ended.err
    (weights,) = tmp_path.rglob("weights.safetensors")
    kept = json.loads(weights.with_name("record.json").read_text())
    assert kept["command"] == "bash reproduce.sh toy --preset smoke"
    ended = tell(root, "--weights", weights, module="papers.toy.eval")
    assert ended.code == 0 and "10.00 %" in ended.out


def test_its_data_is_known_and_verified(root):
    assert "official" in [passport["state"] for passport in told_json(root, "data") if passport["dataset"] == "clouds"]
    assert told_json(root, "data", "toy") == told_json(root, "data", "clouds")
    assert "clouds: official, verified" in tell(root, "data", "clouds").out
    with changed(root / "data" / "clouds" / "clouds.csv", lambda held: held[:-1]):
        assert_told(tell(root, "data", "toy"), 3, "clouds.csv is not what its passport says")


def test_data_that_nobody_serves_is_asked_for(root):
    with without_data(root):
        absent = tell(root, "data", "toy")
    assert_told(absent, 3, "Two clouds cannot be fetched; get it from https://example.org/clouds (public domain).")


def test_it_is_cited(root):
    theirs, ours = told_json(root, "cite", "toy")
    assert theirs.startswith("@article{nobody1958line") and "A Line Between Two Clouds" in ours


def test_all_runs_it(root, tmp_path):
    assert tell(root, "all", "--preset", "smoke", "--runs-dir", tmp_path).code == 0
    assert list(tmp_path.glob("toy/line/smoke-stand-in/seed-0/record.json"))


@contextlib.contextmanager
def another_paper(root, name, change):
    """A second paper for a while: the toy with other sources."""
    folder = root / "papers" / name
    shutil.copytree(root / "papers" / "toy", folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in folder.glob("*.py"):
        file.write_text(change(file.read_text().replace("papers.toy", f"papers.{name}")))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def sound(source):
    return source


def bad_numbers(source):
    return source.replace("loss = F.cross_entropy", "loss = float('nan') * F.cross_entropy")


def test_all_prints_one_json_document_for_all_papers(root, tmp_path):
    with another_paper(root, "early", sound):
        results = told_json(root, "all", "--preset", "smoke", "--runs-dir", tmp_path)
    assert [(result["paper"], result["variant"], result["standin"]) for result in results] == [
        ("early", "line", True),
        ("toy", "line", True),
    ]
    assert all(result["rows"] for result in results)
    (alone,) = told_json(root, "all", "--preset", "smoke", "--runs-dir", tmp_path)
    assert alone == told_json(root, "toy", "--preset", "smoke", "--runs-dir", tmp_path) == results[1]


def test_all_goes_on_where_the_numbers_of_a_paper_go_bad(root, tmp_path):
    with another_paper(root, "early", bad_numbers):
        ended = tell(root, "all", "--preset", "smoke", "--runs-dir", tmp_path)
        assert ended.code == 4 and "Traceback" not in ended.err
        assert "early: A NaN or an infinity appeared in seed 0 of line." in ended.err
        assert ended.complaint[-1] == "1 of 2 papers failed: early."
        assert "early / line, smoke" in ended.out and "toy / line, smoke" in ended.out
        ended = tell(root, "all", "--preset", "smoke", "--runs-dir", tmp_path, "--json")
    assert ended.code == 4
    early, toy = json.loads(ended.out)
    assert [row["verdict"] for row in early["rows"]] == ["failed"] and toy["rows"][0]["n"] == 1


FULL_MEMORIES = {
    "of a GPU": ("raise torch.OutOfMemoryError('CUDA out of memory.')", "The GPU's memory is full."),
    "of PyTorch on a CPU": ("torch.empty(2**50)", "The memory is full. Use a smaller --batch-size"),
    "of Python": ("bytes(2**60)", "The memory is full. Use a smaller --batch-size"),
    "of the system": ("raise OSError(12, 'Cannot allocate memory')", "The memory is full. Use a smaller --batch-size"),
}


def a_bug(source):
    return source.replace("loss = F.cross", "raise RuntimeError('out of memory'); loss = F.cross")


@pytest.mark.parametrize("memory", FULL_MEMORIES)
def test_a_full_memory_ends_with_5_and_all_goes_on(root, tmp_path, memory):
    statement, said = FULL_MEMORIES[memory]
    with another_paper(root, "early", lambda source: source.replace("loss = F.cross", f"{statement}; loss = F.cross")):
        alone = tell(root, "early", "--preset", "smoke", "--runs-dir", tmp_path)
        every = tell(root, "all", "--preset", "smoke", "--runs-dir", tmp_path)
    assert alone.code == 5 and said in alone.complaint[-1] and "Traceback" not in alone.err
    assert every.code == 5 and f"early: {said}" in every.err and "Traceback" not in every.err
    assert every.complaint[-1] == "1 of 2 papers failed: early." and "toy / line, smoke" in every.out


def test_any_other_error_is_shown_as_the_bug_that_it_is(root, tmp_path):
    with another_paper(root, "early", a_bug):
        ended = tell(root, "early", "--preset", "smoke", "--runs-dir", tmp_path)
    assert ended.code == 1 and "Traceback" in ended.err and "RuntimeError: out of memory" in ended.err


def test_all_goes_on_past_absent_data_and_exits_with_the_first_failure(root, tmp_path):
    words = ["all", "--preset", "quick", "--data", "real", "--json", "--runs-dir", tmp_path]
    with another_paper(root, "early", sound) as folder, another_paper(root, "first", bad_numbers):
        passport = folder / "passports" / "clouds.yaml"
        passport.write_text(passport.read_text().replace("folder: clouds", "folder: nowhere"))
        ended = tell(root, *words)
    assert ended.code == 3 and "Traceback" not in ended.err
    early, first, toy = json.loads(ended.out)
    assert early.keys() == {"paper", "error"} and "Two clouds cannot be fetched" in early["error"]
    assert [row["verdict"] for row in first["rows"]] == ["failed"]
    assert toy["rows"][0]["edition"] == "official" and toy["rows"][0]["n"] == 1
    assert ended.complaint[-1] == "2 of 3 papers failed: early, first."


def for_a_gpu(folder):
    file = folder / "paper.yaml"
    file.write_text(file.read_text().replace("needs: {hours: 0.1}", "needs: {hours: 20, device: GPU}"))


def test_all_skips_a_paper_that_needs_a_gpu_and_says_what_runs_instead(root, tmp_path):
    said = "early is skipped: line needs a GPU. On a CPU: bash reproduce.sh early --preset quick"
    with another_paper(root, "early", sound) as folder:
        for_a_gpu(folder)
        ended = tell(root, "all", "--json", "--device", "cpu", "--runs-dir", tmp_path)
        early, toy = json.loads(ended.out)
        assert ended.code == 0 and said in ended.complaint
        assert early == {"paper": "early", "skipped": said} and toy["rows"]
        assert not (tmp_path / "early").exists()
        for words in (["all", "--preset", "quick"], ["all", "--data", "standin"], ["early"]):
            ended = tell(root, *words, "--runs-dir", tmp_path)
            assert ended.code == 0 and "skipped" not in ended.err and "early / line" in ended.out


def test_test_hands_its_words_to_pytest(root):
    assert tell(root, "test", "--version").code == 0


def test_what_is_no_full_unmodified_run_on_real_data_is_not_published(root, tmp_path):
    for words in (["--learning-rate", "0.05"], ["--data", "standin"], ["--preset", "smoke"], ["--preset", "quick"]):
        assert tell(root, "toy", *words, "--runs-dir", tmp_path).code == 0
    ended = tell(root, "publish", "toy", "--runs-dir", tmp_path)
    assert ended.code == 2 and "holds nothing to publish" in ended.complaint[-1]
    assert "(not the full recipe)" in ended.err and "(stand-in data)" in ended.err
    assert results(root) == {}


CANNOT = "What this run gives cannot be published: "


def test_what_uncommitted_sources_gave_is_not_published(root, tmp_path):
    with changed(root / "papers" / "toy" / "model.py", lambda held: held + b"# changed\n"):
        ended = tell(root, "toy", "--runs-dir", tmp_path)
    assert ended.code == 0 and f"{CANNOT}papers/toy/model.py is not as in commit " in ended.complaint[0]
    ended = tell(root, "publish", "toy", "--runs-dir", tmp_path)
    assert ended.code == 2 and "(its sources were changed from those of commit " in ended.err
    assert results(root) == {}


NO_COMMIT = {
    "another user's clone": (
        {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"},
        "fatal: detected dubious ownership",
    ),
    "no .git": ({"GIT_DIR": "/nonexistent"}, "fatal: not a git repository"),
    "no git": ({"PATH": "/nonexistent"}, "No such file or directory: git"),
}


@pytest.mark.parametrize("kind", NO_COMMIT)
def test_where_git_does_not_tell_the_commit_its_words_are_shown_at_the_start(root, tmp_path, kind):
    env, said = NO_COMMIT[kind]
    ended = tell(root, "toy", "--runs-dir", tmp_path, env=env)
    assert ended.code == 0 and f"{CANNOT}git does not tell which commit this is ({said}" in ended.complaint[0]
    ended = tell(root, "publish", "toy", "--runs-dir", tmp_path)
    assert ended.code == 2 and "(its commit is unknown: git did not tell when it was made)" in ended.err
    assert results(root) == {}


def edit(file, change):
    record = json.loads(file.read_text())
    change(record)
    file.write_text(json.dumps(record))


@pytest.fixture
def four_runs(root, tmp_path):
    """A copy of the repository with four seeds run, none published."""
    copy = tmp_path / "repository"
    shutil.copytree(root, copy)
    claims = copy / "papers" / "toy" / "paper.yaml"
    claims.write_text(claims.read_text().replace("dataset: clouds}", "dataset: clouds, seeds: 4}", 1))
    assert tell(copy, "toy", "--seeds", "0,1,2,3").code == 0
    return copy


def run_file(root, seed):
    return root / "runs" / "toy" / "line" / "full-official" / f"seed-{seed}" / "record.json"


def test_a_broken_run_is_refused_and_the_others_are_published(four_runs):
    edit(run_file(four_runs, 0), lambda record: record["metrics"]["last"].update(test_error=9.0))
    run_file(four_runs, 1).write_text("{")
    run_file(four_runs, 2).with_name("weights.safetensors").write_bytes(b"")
    edit(run_file(four_runs, 3), lambda record: record["weights"].update(file=None))
    ended = tell(four_runs, "publish", "toy")
    assert ended.code == 1 and "Traceback" not in ended.err
    assert f"{run_file(four_runs, 0)} (test_error (last) is 9.0, but was measured again as 10.0)" in ended.err
    assert f"{run_file(four_runs, 1)}: cannot be read: " in ended.err and "Start over with --fresh." in ended.err
    assert "is not a whole safetensors file" in ended.err
    assert ended.complaint[-1].startswith("Not published, see above: ")
    assert all(str(run_file(four_runs, seed)) in ended.complaint[-1] for seed in (0, 1, 2))
    names = [path.name for path in (four_runs / "results" / "records").rglob("seed-*")]
    assert names == ["seed-3.json"] and (four_runs / "results" / "comparison.json").exists()


def test_runs_of_what_is_no_longer_there_are_not_published(four_runs):
    shutil.copytree(run_file(four_runs, 0).parents[2], four_runs / "runs" / "toy" / "curve")
    for file in (four_runs / "runs" / "toy" / "curve").rglob("record.json"):
        edit(file, lambda record: record.update(variant="curve"))
    train = four_runs / "papers" / "toy" / "train.py"
    ended = tell(four_runs, "publish", "toy")
    assert ended.code == 0 and ended.err.count("(toy has no variant 'curve')") == 4
    shutil.rmtree(four_runs / "results")
    train.write_text(train.read_text().replace("] = 0.1  #", "] = 0.2  #"))
    ended = tell(four_runs, "publish", "toy")
    assert ended.code == 1 and ended.err.count("(made with a recipe other than today's: run it again)") == 4
    assert not (four_runs / "results" / "records").exists()


# ---- published ------------------------------------------------------------------------------------


def test_records_weights_tables_and_figures_are_published(published):
    names = {name for name, held in results(published).items() if held}
    assert names == {
        *(f"records/toy/line/official/seed-{seed}.json" for seed in (0, 1, 2)),
        "weights/toy/line.safetensors", "figures/toy/loss.png", "figures/toy/points.png",
        "figures/claims.png", "comparison.json", "comparison.csv", "comparison.tex", "ideas.json",
        "README.md", "index.html",
    }  # fmt: skip
    (row,) = json.loads((published / "results" / "comparison.json").read_text())
    assert (row["claim"], row["mean"], row["n"], row["verdict"]) == ("line-test", 10.0, 3, "reproduced")
    for page in ("README.md", "papers/toy/README.md"):
        text = (published / page).read_text()
        assert "\nWhat a page says itself stays as it is.\n" in text and text.endswith("\nThis too.\n")
        assert "**reproduced**" in text


def test_tables_and_figures_come_out_the_same_byte_for_byte(published):
    before = results(published)
    assert tell(published, "publish", "toy").code == 0
    assert results(published) == before
    for path in (published / "results").rglob("*.*"):
        if path.suffix in (".csv", ".tex", ".html", ".md", ".png"):
            path.unlink()
    ended = tell(published, "table")
    assert ended.code == 0 and "results/figures/toy/loss.png" in ended.out
    assert results(published) == before
    assert told_json(published, "table") == ended.out.splitlines()


def test_a_figure_of_data_that_is_not_here_is_left_as_it_is(published):
    before = results(published)
    with without_data(published):
        ended = tell(published, "table")
    assert ended.code == 0 and "figures/toy/loss.png" in ended.out and "points.png" not in ended.out
    assert "results/figures/toy/points.png is left as it is: what it is drawn from is not here" in ended.err
    assert results(published) == before
    (published / "results" / "figures" / "toy" / "points.png").unlink()
    with without_data(published):
        assert "points.png" not in tell(published, "table").err
    assert tell(published, "table").code == 0 and results(published) == before


def test_a_full_disk_while_publishing_ends_with_5_and_harms_nothing(published):
    before = results(published)
    ended = tell(published, "publish", "toy", fault="fsync:1:ENOSPC")
    assert_told(ended, 5, "No space left on device")
    assert results(published) == before


def test_running_again_gives_the_very_bits_of_the_published_record(published, tmp_path):
    ended = tell(published, "toy", "--seeds", "1", "--runs-dir", tmp_path)
    assert "seed 1: the very bits of the published record (results/records/toy/line/official/seed-1.json)." in ended.out
    before = results(published)
    assert tell(published, "publish", "toy", "--runs-dir", tmp_path).code == 0
    assert results(published) == before  # the date and the times too


def test_a_published_record_is_not_replaced_by_one_with_other_bits(published, tmp_path):
    assert tell(published, "toy", "--seeds", "1", "--runs-dir", tmp_path).code == 0
    (record,) = tmp_path.rglob("record.json")
    other = json.loads(record.read_text())
    other["weights"]["sha256"] = "0" * 64
    record.write_text(json.dumps(other))
    before = results(published)
    assert_told(tell(published, "publish", "toy", "--runs-dir", tmp_path), 2, "is published already and differs")
    assert results(published) == before


def test_published_weights_measure_what_their_record_says(published):
    ended = tell(published, "eval", "toy")
    assert ended.code == 0 and "10.00 (seed 0, the same)" in ended.out
    (measured,) = told_json(published, "eval", "toy")
    assert measured["metrics"] == {"last": {"test_error": 10.0}}


def test_the_list_knows_how_long_it_takes(published):
    (entry,) = told_json(published)
    assert isinstance(entry["minutes"], float)


def test_verify_finds_everything_as_it_says(published):
    findings = told_json(published, "verify")
    assert {finding["state"] for finding in findings} == {"ok"}
    assert {"toy: records", "toy: results/weights/toy/line.safetensors", "toy: determinism"} < {
        finding["check"] for finding in findings
    }


def test_verify_skips_what_needs_absent_data(published):
    with without_data(published):
        ended = tell(published, "verify", "toy")
    assert ended.code == 0 and "skipped   toy: results/weights/toy/line.safetensors" in ended.out


def test_verify_with_a_wrong_folder_or_damaged_data_ends_with_3(published, tmp_path):
    nowhere = tmp_path / "nowhere"
    assert_told(tell(published, "verify", "--data-dir", nowhere), 3, f"--data-dir {nowhere}: no such folder.")
    with changed(published / "data" / "clouds" / "clouds.csv", lambda held: held[:-1]):
        assert_told(tell(published, "verify"), 3, "clouds.csv is not what its passport says")


def test_verify_trains_a_seed_again(published):
    """Of the sources that it ran from, whatever they are today."""
    with changed(published / "papers" / "toy" / "data.py", lambda held: held + b"# changed\n"):
        ended = tell(published, "verify", "toy", "--rerun", "1")
    assert ended.code == 0, ended.out + ended.err
    (line,) = [line for line in ended.out.splitlines() if "seed 1 of line" in line]
    assert re.fullmatch(
        r"ok        toy: seed 1 of line  trained again by the sources of [0-9a-f]{7}: the very bits of the record", line
    )
    assert "seed-1.json is trained again by the sources of" in ended.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rerun", "1"], "--rerun needs a paper"),
        (["toy", "--variant", "line"], "--variant goes with --rerun."),
        (["toy", "--rerun", "1", "--variant", "lime"], "Did you mean line?"),
        (["toy", "--rerun", "7"], "No finished record of seed 7 of line is published."),
    ],
)
def test_verify_says_which_seeds_can_be_trained_again(published, words, said):
    assert_told(tell(published, "verify", *words), 2, said)


DAMAGES = [
    ("results/records/toy/line/official/seed-1.json", lambda held: held[:-9], "toy: records"),
    (
        "results/records/toy/line/official/seed-0.json",
        lambda held: held.replace(b'"test_error": 10.0', b'"test_error": 9.0'),
        "toy: results/weights/toy/line.safetensors",
    ),
    (
        "results/records/toy/line/official/seed-2.json",
        lambda held: held.replace(b'"preset": "full"', b'"preset": "quick"'),
        "toy: records",
    ),
    (
        "results/records/toy/line/official/seed-2.json",
        lambda held: re.sub(rb'"commit": "[0-9a-f]+"', b'"commit": null', held),
        "toy: records",
    ),
    ("papers/toy/train.py", lambda held: held.replace(b"] = 0.1  #", b"] = 0.2  #"), "toy: records"),
    ("results/comparison.csv", lambda held: held.replace(b"10.0", b"9.0"), "table results/comparison.csv"),
    ("README.md", lambda held: held.replace(b"10.00", b"9.00"), "table README.md"),
    (
        "results/weights/toy/line.safetensors",
        lambda held: held[:-1] + bytes([held[-1] ^ 1]),
        "toy: results/weights/toy/line.safetensors",
    ),
    ("results/weights/toy/line.safetensors", lambda held: held[:-9], "toy: results/weights/toy/line.safetensors"),
]


@pytest.mark.parametrize(("name", "damage", "check"), DAMAGES)
def test_verify_finds_what_is_wrong_and_ends_with_1(published, name, damage, check):
    with changed(published / name, damage):
        ended = tell(published, "verify")
    assert ended.code == 1 and "Traceback" not in ended.err
    assert f"WRONG     {check}" in ended.out
    assert "checks failed." in ended.complaint[-1]


# ---- another generation -----------------------------------------------------------------------------


@pytest.fixture
def changed_recipe(published, tmp_path):
    """A copy of the published repository whose recipe has changed, committed, with seeds 0 and 1 run again."""
    copy = tmp_path / "repository"
    shutil.copytree(published, copy)
    train = copy / "papers" / "toy" / "train.py"
    train.write_text(train.read_text().replace("] = 20  # passes", "] = 25  # passes", 1))
    for words in (["add", "."], ["-c", "user.name=x", "-c", "user.email=x@y", "commit", "-qm", "longer"]):
        subprocess.run(["git", *words], cwd=copy, check=True)
    assert tell(copy, "toy", "--seeds", "0,1", "--runs-dir", copy / "new").code == 0
    return copy


def test_records_are_replaced_as_a_whole_and_what_they_said_is_kept(changed_recipe):
    root, words = changed_recipe, ["publish", "toy", "--runs-dir", changed_recipe / "new"]
    before = results(root)
    ended = tell(root, *words)
    assert ended.code == 2 and "To replace all seeds of the variant with new runs: publish --replace." in ended.err
    assert_told(tell(root, *words, "--replace"), 2, "line (official) is replaced as a whole: run seeds 2 again too.")
    assert {k: v for k, v in results(root).items() if k.startswith("records")} == {
        k: v for k, v in before.items() if k.startswith("records")
    }
    assert tell(root, "toy", "--seeds", "2", "--runs-dir", root / "new").code == 0
    ended = tell(root, *words, "--replace")
    assert ended.code == 0 and "replaced: 3 records of line (official)" in ended.err
    new = json.loads((root / "results" / "records" / "toy" / "line" / "official" / "seed-0.json").read_text())
    assert new["recipe"]["epochs"] == 25
    (kept,) = json.loads((root / "results" / "generations.json").read_text())["generations"]
    old = json.loads(before["records/toy/line/official/seed-0.json"])
    assert (kept["variant"], kept["metric"], kept["mean"], kept["n"]) == ("line", "test_error", 10.0, 3)
    assert kept["commits"] == [old["code"]["commit"][:7]] and kept["same_bits"] == 0
    assert "### Earlier generations" in (root / "papers" / "toy" / "README.md").read_text()
    assert tell(root, "verify", "toy").code == 0
