"""What the git history says of records: that they ran from it, and that nobody changed them since."""

import json
import subprocess

import pytest

from common.base import paths
from common.publishing.history import NoHistory, by_commit, checked_out, edit_faults, source_faults
from common.publishing.verify import SKIPPED, _edits, _sources
from common.training.provenance import source_hash

FOLDER = "results/records/alpha_2001/plain/official"


@pytest.fixture
def commit(toy, git):
    """Commits everything: the new commit."""

    def commit() -> str:
        git("add", "--all")
        git("commit", "--allow-empty", "-qm", "x")
        return git("rev-parse", "HEAD")

    return commit


@pytest.fixture
def paper(toy):
    paper = toy.paper()
    for name in ("train.py", "eval.py"):
        (paper.folder / name).write_text("import common.alpha\n")
    return paper


@pytest.fixture
def run(record):
    """Makes records of runs that have nothing in common."""

    def run(seed=0, value=0.95, wall=60.0, **changes):
        times = {"wall_seconds": wall + seed, "training_seconds": 50.0, "samples_per_second": 3.5}
        return record(seed, value, **{"times": times, "weights": {"sha256": f"{seed:02}" * 32}} | changes)

    return run


# ---- the sources -----------------------------------------------------------------------------------


def ran_from(commit, sources, **changes):
    return {"code": {"commit": commit, "committed": True, "sources": sources}, "date": "2999-01-01"} | changes


def faults(paper) -> list[str]:
    return [fault for commit, records in by_commit(paper).items() for fault in source_faults(paper, commit, records)]


def test_sources_are_those_of_the_commit_whatever_they_are_today(toy, paper, run, commit):
    before, sources = commit(), source_hash("alpha_2001")
    (paper.folder / "train.py").write_text("import common.beta\n")
    toy.publish(run(0, **ran_from(before, sources)))
    assert faults(paper) == []
    toy.publish(run(1, **ran_from(before, source_hash("alpha_2001"))))
    assert faults(paper) == [f"{FOLDER}/seed-1.json: its sources are not those of its commit {before[:7]}"]


def test_a_commit_from_before_the_paper_has_none_of_its_sources(toy, git, run, commit):
    toy.paper("beta_2010")
    before = commit()
    paper = toy.paper()
    toy.publish(run(0, **ran_from(before, "34" * 32)))
    assert faults(paper) == [f"{FOLDER}/seed-0.json: its sources are not those of its commit {before[:7]}"]


def test_an_unknown_commit_and_one_beside_the_history_are_found(toy, git, paper, run, commit):
    commit()
    beside = git("commit-tree", "HEAD^{tree}", "-m", "beside")
    for seed, other in enumerate(("ab" * 20, beside)):
        toy.publish(run(seed, **ran_from(other, source_hash("alpha_2001"))))
    assert faults(paper) == [
        f"{FOLDER}/seed-0.json: its commit abababa is not in the history",
        f"{FOLDER}/seed-1.json: its commit {beside[:7]} is not in the history",
    ]


def test_a_merge_that_is_not_committed_yet_belongs_to_the_history(toy, git, paper, run, commit):
    commit()
    git("checkout", "-q", "-b", "other")
    (paper.folder / "train.py").write_text("import common.beta\n")
    merged, sources = commit(), source_hash("alpha_2001")
    git("checkout", "-q", "-")
    toy.publish(run(0, **ran_from(merged, sources)))
    assert faults(paper) == [f"{FOLDER}/seed-0.json: its commit {merged[:7]} is not in the history"]
    git("merge", "-q", "--no-ff", "--no-commit", "other")
    assert faults(paper) == []


def test_no_record_is_older_than_its_commit(toy, git, paper, run, commit):
    before, sources = commit(), source_hash("alpha_2001")
    made = git("show", "--no-patch", "--format=%cs", before)
    toy.publish(run(0, **ran_from(before, sources, date=made)), run(1, **ran_from(before, sources, date="2001-02-03")))
    said = f"is dated 2001-02-03, but its commit {before[:7]} is of {made}"
    assert faults(paper) == [f"{FOLDER}/seed-1.json: {said}"]


def test_what_is_checked_out_is_the_commit(paper, commit):
    before = commit()
    (paper.folder / "train.py").unlink()
    with checked_out(before) as tree:
        assert (tree / "papers" / "alpha_2001" / "train.py").read_text() == "import common.alpha\n"
    assert not tree.exists()


# ---- what was committed before -----------------------------------------------------------------------


def edited(seed, change) -> None:
    file = paths.ROOT / FOLDER / f"seed-{seed}.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_a_record_as_it_was_committed_and_one_that_never_was_are_sound(toy, paper, run, commit):
    toy.publish(run(0))
    commit()
    toy.publish(run(1))
    assert edit_faults(paper) == []


def test_what_cannot_be_read_in_the_history_says_nothing(toy, paper, run, commit):
    """Conflict markers, say, that were committed once."""
    toy.publish(run(0))
    file = paths.ROOT / FOLDER / "seed-0.json"
    sound = file.read_text()
    for damaged in ("<<<<<<< HEAD", "[]", sound):
        file.write_text(damaged)
        commit()
    assert edit_faults(paper) == []


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        (lambda c: c["metrics"]["last"].update(test_error=0.9), "metrics"),
        (lambda c: c["environment"].update(processor="an abacus"), "environment"),
        (lambda c: c["weights"].update(sha256="ff" * 32), "weights"),
        (lambda c: c.update(date="2001-02-04", command="bash reproduce.sh"), "command, date"),
    ],
)
def test_a_record_that_was_edited_is_found(toy, paper, run, commit, change, fields):
    toy.publish(run(0))
    commit()
    edited(0, change)
    assert edit_faults(paper) == [f"{FOLDER}/seed-0.json: {fields} changed after it was committed"]
    commit()
    assert len(edit_faults(paper)) == 1


def test_weights_are_published_later(toy, paper, run, commit):
    toy.publish(run(0))
    commit()
    edited(0, lambda c: c["weights"].update(file="results/weights/alpha_2001/plain.safetensors"))
    assert edit_faults(paper) == []


def test_what_is_published_in_float16_is_added_later_and_then_stays(toy, paper, run, commit):
    def rounded(value: float) -> dict:
        float16 = {"sha256": "ab" * 32, "metrics": {"last": {"test_error": value}}}
        return {"file": "results/weights/alpha_2001/plain.safetensors", "float16": float16}

    toy.publish(run(0))
    commit()
    edited(0, lambda c: c["weights"].update(rounded(0.9)))
    assert edit_faults(paper) == []
    commit()
    edited(0, lambda c: c["weights"].update(rounded(0.8)))
    assert edit_faults(paper) == [f"{FOLDER}/seed-0.json: float16 changed after it was committed"]


def test_a_seed_run_again_may_end_with_other_bits_or_the_same(toy, paper, run, commit):
    toy.publish(run(0), run(1))
    commit()
    other = {"code": {"commit": "21" * 20, "committed": True, "sources": "43" * 32}}
    toy.publish(run(0, 0.9, wall=70, weights={"sha256": "ff" * 32}), run(1, 0.9, wall=70, **other))
    assert edit_faults(paper) == []


def test_the_same_weights_measure_the_same_by_the_same_sources(toy, paper, run, commit):
    toy.publish(run(0))
    commit()
    toy.publish(run(0, 0.9, wall=70))
    said = "test_error (last) is 0.9, recorded 0.95 of the same weights"
    assert edit_faults(paper) == [f"{FOLDER}/seed-0.json: {said}"]


def test_a_seed_under_another_number_is_found(toy, paper, run, commit):
    toy.publish(run(0), run(1), run(2))
    commit()
    toy.publish(run(2).model_copy(update={"seed": 1}), run(2, wall=70).model_copy(update={"seed": 0}))
    assert edit_faults(paper) == [
        f"{FOLDER}/seed-0.json: has the weights that were committed as {FOLDER}/seed-2.json",
        f"{FOLDER}/seed-1.json: is the run that was committed as {FOLDER}/seed-2.json",
    ]


def test_a_seed_left_out_is_found_but_not_where_all_are_gone_or_fewer_are_fixed(toy, paper, run, commit):
    toy.publish(run(0), run(1), run(2), run(3))
    commit()
    for seed in (2, 3):
        run(seed).path().unlink()
    assert edit_faults(paper) == [f"{FOLDER}/seed-2.json: was committed and is gone"]
    for seed in (0, 1):
        run(seed).path().unlink()
    assert edit_faults(paper) == []


def test_a_record_of_released_weights_that_was_edited_is_found(toy, git, released_record, commit):
    paper = toy.paper(content=toy.released_content())
    toy.publish(released_record())
    commit()
    assert edit_faults(paper) == []
    toy.publish(released_record(0.9))
    place = "results/records/alpha_2001/released/theirs/shapes.json"
    assert edit_faults(paper) == [f"{place}: metrics changed after it was committed"]


# ---- without a history -------------------------------------------------------------------------------


def test_without_a_history_nothing_is_asked(toy, paper, run):
    toy.publish(run(0))
    found = [*_sources(paper, None), *_edits(paper, None)]
    assert [state for state, *_ in found] == [SKIPPED] * 2
    assert all(why.startswith("there is no git history here to ask (fatal: not a git rep") for *_, why in found)


def test_a_shallow_clone_says_which_commit_it_does_not_reach(toy, paper, run, commit, tmp_path, monkeypatch):
    first = commit()
    toy.publish(run(0, **ran_from(first, source_hash("alpha_2001"))))
    commit()
    subprocess.run(["git", "clone", "-q", "--depth", "1", toy.root.as_uri(), tmp_path / "shallow"], check=True)
    monkeypatch.setattr(paths, "ROOT", tmp_path / "shallow")
    (found,) = _sources(paper, None)
    said = f"the history here does not reach back to {first[:7]}"
    assert found == (SKIPPED, f"alpha_2001: sources of {first[:7]}", said)
    with pytest.raises(NoHistory):
        source_faults(paper, first, [])
