"""Forged records in which everything fits together: which check of verify finds them, and what only training the seed
again does."""

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import papers
from common.base import paths
from common.claims.papers import load_paper
from common.data.passports import file_sha256
from common.pages.tables import rebuild
from common.publishing import publish, verify
from common.publishing.measure import measure_published, measure_record, recorded_data, with_weights
from common.publishing.rerun import records_of, rerun
from common.publishing.verify import WRONG
from common.training.provenance import hash_of
from common.training.records import read_record
from common.training.weights import load_weights, rounded, save_weights
from tests.contract.helpers import make_toy_repository, run
from tests.repository import move_to

RECORDS, WEIGHTS = "results/records/toy", "results/weights/toy"
SEEDS = (0, 1, 2)
IDENTITY = ("-c", "user.name=x", "-c", "user.email=x@y")

# The toy with a second variant, and a protocol whose value is the point of a curve.
PROTOCOL = """

def metrics_of_curves(curves, recipe):
    return {"halfway": {"test_error": curves["test_error"][recipe.epochs // 2]}}
"""
PATCHES = {
    "train.py": [
        ('{"line": Recipe()}', '{"line": Recipe(), "long": Recipe(epochs=30)}'),
        (
            "Trained(weights=copied(model)",
            "Trained(metrics=metrics_of_curves(run.curves, recipe), weights=copied(model)",
        ),
        ("\n\nif __name__", f"{PROTOCOL}\n\nif __name__"),
    ],
    "paper.yaml": [
        ("dataset: clouds}\n", "dataset: clouds}\n  long: {description: half as long again, dataset: clouds}\n"),
        ("of training\n", "of training\n  halfway: those after half of it\n"),
    ],
}


def git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", *IDENTITY, *words], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(root: Path) -> None:
    git(root, "add", "--all")
    git(root, "commit", "-qm", "x")


def replace(file: Path, *pairs: tuple[str, str]) -> None:
    text = file.read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new, 1)
    file.write_text(text)


@pytest.fixture(scope="module")
def new(tmp_path_factory) -> Path:
    """All seeds of both variants are run and published, but the records are not committed yet."""
    root = make_toy_repository(tmp_path_factory.mktemp("forged") / "repository")
    for name, pairs in PATCHES.items():
        replace(root / "papers" / "toy" / name, *pairs)
    commit(root)
    for words in (["toy", "--seeds", "0,1,2"], ["toy", "--variant", "long", "--seeds", "0,1,2"], ["publish", "toy"]):
        ended = run(*words, root=root, log=root.parent / "log")
        assert ended.code == 0, ended.err
    return root


@pytest.fixture(scope="module")
def committed(new, tmp_path_factory) -> Path:
    root = shutil.copytree(new, tmp_path_factory.mktemp("committed") / "repository")
    commit(root)
    return root


@pytest.fixture
def at(monkeypatch, tmp_path) -> Callable[[Path], Path]:
    """Makes a copy of a repository that this process takes for its own."""

    def at(repository: Path) -> Path:
        root = shutil.copytree(repository, tmp_path / "repository")
        move_to(root, monkeypatch)
        monkeypatch.setattr(papers, "__path__", [str(paths.PAPERS)])
        _forget_toy()
        return root

    yield at
    _forget_toy()


def _forget_toy() -> None:
    for name in [name for name in sys.modules if name.startswith("papers.toy")]:
        del sys.modules[name]


def wrong(check: str) -> list[str]:
    """What one of verify's checks finds to be wrong."""
    found = verify._found(check, partial(verify.CHECKS[check], load_paper("toy"), None))
    return [f"{what}: {text}" for state, what, text in found if state == WRONG]


# ---- the forgeries ---------------------------------------------------------------------------------


def record_file(root: Path, seed: int, variant: str = "line") -> Path:
    return root / RECORDS / variant / "official" / f"seed-{seed}.json"


@contextlib.contextmanager
def edited(file: Path):
    record = json.loads(file.read_text())
    yield record
    file.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


def another_metric(root):
    """In all places of a record: measured, measured again, in the curve."""
    with edited(record_file(root, 1)) as record:
        record["metrics"]["last"]["test_error"] = record["remeasured"]["last"]["test_error"] = 9.0
        record["curves"]["test_error"][-1] = 9.0


def a_better_epoch(root):
    with edited(record_file(root, 1)) as record:
        record["metrics"]["halfway"]["test_error"] = 7.0


def one_seed_for_another(root):
    with edited(record_file(root, 0)) as record:
        weights = record["weights"]
        record.update(json.loads(record_file(root, 2).read_text()), seed=0)
        record["weights"]["file"] = weights["file"]
    shutil.copy(root / "runs/toy/line/full-official/seed-2/weights.safetensors", root / WEIGHTS / "line.safetensors")


def worst_dropped(root):
    """And the rest renumbered."""
    (root / WEIGHTS / "line.safetensors").unlink()
    for seed in (0, 1):
        shutil.copy(record_file(root, seed + 1), record_file(root, seed))
        with edited(record_file(root, seed)) as record:
            record["seed"] = seed
    record_file(root, 2).unlink()


def last_dropped(root):
    record_file(root, 2).unlink()


def weights_of_another_variant(root):
    """The record of `long` is made from the one of `line`, recipe aside."""
    (file,) = [record_file(root, seed) for seed in SEEDS if published(record_file(root, seed))]
    shutil.copy(root / WEIGHTS / "line.safetensors", root / WEIGHTS / "long.safetensors")
    for seed in SEEDS:
        with edited(record_file(root, seed, "long")) as record:
            record["weights"]["file"] = None
    line = json.loads(file.read_text())
    with edited(record_file(root, line["seed"], "long")) as record:
        record.update({name: line[name] for name in ("metrics", "remeasured", "weights")})
        record["weights"]["file"] = f"{WEIGHTS}/long.safetensors"


def published(file: Path) -> bool:
    return json.loads(file.read_text())["weights"]["file"] is not None


def other_weights(root):
    """Under the same name, and from no run at all."""
    file = root / WEIGHTS / "line.safetensors"
    weights = load_weights(file)
    weights["bias"] += 0.001
    save_weights(weights, file)


def for_all(root, change, variant="line"):
    for file in (root / RECORDS / variant).rglob("*.json"):
        with edited(file) as record:
            change(record)


def invented_commit(root):
    for_all(root, lambda record: record["code"].update(commit="ab" * 20))


def another_commit(root):
    first = git(root, "rev-list", "--max-parents=0", "HEAD")
    for_all(root, lambda record: record["code"].update(commit=first))


def invented_environment(root):
    for_all(root, lambda record: record["environment"].update(device="NVIDIA H100", torch="2.15.0+cu132"))


def backdated(root):
    for_all(root, lambda record: record.update(date="1958-01-01"))


def another_recipe(root):
    """The recipe has changed since, and the records are made to have run with it."""
    replace(root / "papers/toy/train.py", ("= 0.9  # Sec. 2", "= 0.8  # Sec. 2"))

    def change(record):
        record["recipe"]["momentum"] = 0.8
        record["recipe_hash"] = hash_of(record["recipe"])

    for file in (root / RECORDS).rglob("*.json"):
        with edited(file) as record:
            change(record)


def another_printed_number(root):
    """With the margin that the rule gives for it, committed."""
    replace(
        root / "papers/toy/paper.yaml", ('reported: "10.0"', 'reported: "9.0"'), ("tolerance: 5.9", "tolerance: 5.6")
    )
    commit(root)


def more_seeds(root):
    replace(root / "papers/toy/paper.yaml", ("dataset: clouds}", "dataset: clouds, seeds: 4}"))


def another_figure(root):
    shutil.copy(root / "results/figures/toy/points.png", root / "results/figures/toy/loss.png")


def a_figure_of_nothing(root):
    shutil.copy(root / "results/figures/toy/points.png", root / "results/figures/toy/proof.png")


LINE = f"{RECORDS}/line/official"
FOUND = [
    (another_metric, "history", "seed-1.json: curves, metrics, remeasured changed after it was committed"),
    (a_better_epoch, "records", "seed-1.json: test_error (halfway) is 7.0, but its curve has"),
    (one_seed_for_another, "records", f"seed-2.json: has the weights of {LINE}/seed-0.json"),
    (worst_dropped, "history", f"seed-0.json: is the run that was committed as {LINE}/seed-1.json"),
    (last_dropped, "history", f"{LINE}/seed-2.json: was committed and is gone"),
    (weights_of_another_variant, "records", f".json: has the weights of {LINE}/"),
    (weights_of_another_variant, "weights", "says that it is of toy/line/seed-"),
    (other_weights, "weights", "holds weights other than those of toy/line/seed-"),
    (invented_commit, "sources", "seed-0.json: its commit abababa is not in the history"),
    (another_commit, "sources", "seed-0.json: its sources are not those of its commit"),
    (backdated, "sources", "seed-0.json: is dated 1958-01-01, but its commit"),
    (invented_environment, "records", "seed-0.json: its device is NVIDIA H100, but toy runs on cpu only"),
    (another_recipe, "history", "seed-0.json: recipe, recipe_hash changed after it was committed"),
    (another_printed_number, "claims", "line: seed 0, 1, 2 ran at"),
    (more_seeds, "claims", "and seeds or claims were different then"),
    (another_figure, "figures", "figure results/figures/toy/loss.png: is not what the records give"),
    (a_figure_of_nothing, "figures", "figure results/figures/toy/proof.png: no figure is called that"),
]


@pytest.mark.parametrize(("forge", "check", "said"), FOUND, ids=[f"{f.__name__}-{check}" for f, check, _ in FOUND])
def test_a_consistent_forgery_is_found(committed, at, forge, check, said):
    forge(at(committed))
    found = wrong(check)
    assert any(said in line for line in found), found


def test_nothing_is_found_where_nothing_is_forged(committed, at):
    at(committed)
    assert {check: wrong(check) for check in verify.CHECKS} == {check: [] for check in verify.CHECKS}


# ---- weights in float16 -----------------------------------------------------------------------------


@pytest.fixture
def in_float16(new, at, monkeypatch) -> Path:
    """The weights of `line`, as if they were large, and none of `long`; not committed yet."""
    root = at(new)
    shutil.rmtree(root / WEIGHTS)
    for_all(root, lambda record: record["weights"].update(file=None), variant="long")
    replace(root / "papers/toy/paper.yaml", ("default_variant: line", "default_variant: line\nweights_of: line"))
    monkeypatch.setattr(publish, "LARGEST_WEIGHTS", 10)
    new = [publish.publish_weights(load_paper("toy"), variant, root / "runs") for variant in ("line", "long")]
    assert new == [True, False]
    return root


def published_line(root: Path) -> Path:
    (file,) = [record_file(root, seed) for seed in SEEDS if published(record_file(root, seed))]
    return file


def other_rounded_weights(root, honest_hash=False):
    """With all that the file says of itself; and the record has its hash."""
    file, record = root / WEIGHTS / "line.safetensors", published_line(root)
    of = json.loads(record.read_text())
    weights = {name: tensor + 0.5 for name, tensor in load_weights(file).items()}  # which moves no line
    run = f"toy/line/seed-{of['seed']}"
    save_weights(rounded(weights), file, run, of["recipe"], rounded_from=of["weights"]["sha256"])
    if not honest_hash:
        with edited(record) as forged:
            forged["weights"]["float16"]["sha256"] = file_sha256(file)


def rounded_weights_from_nowhere(root):
    other_rounded_weights(root, honest_hash=True)


def rounded_weights_of_another_variant(root):
    """Those of `long`, which say so."""
    file, record = root / WEIGHTS / "line.safetensors", published_line(root)
    seed = json.loads(record.read_text())["seed"]
    weights = load_weights(root / f"runs/toy/long/full-official/seed-{seed}/weights.safetensors")
    with edited(record) as forged:
        save_weights(rounded(weights), file, f"toy/long/seed-{seed}", rounded_from=forged["weights"]["sha256"])
        forged["weights"]["float16"]["sha256"] = file_sha256(file)


def better_in_float16(root):
    with edited(published_line(root)) as record:
        record["weights"]["float16"]["metrics"]["last"]["test_error"] = 1.0


def another_weights_of(root):
    replace(root / "papers/toy/paper.yaml", ("weights_of: line", "weights_of: long"))


@pytest.mark.parametrize(
    ("forge", "check", "said"),
    [
        (another_weights_of, "records", "weights_of does not name line"),
        (rounded_weights_from_nowhere, "weights", "line.safetensors: holds weights other than those of toy/line/seed-"),
        (rounded_weights_of_another_variant, "weights", "line.safetensors: says that it is of toy/long/seed-"),
        (better_in_float16, "weights", "test_error (last) is 10.0, recorded 1.0"),
        (better_in_float16, "history", "float16 changed after it was committed"),
    ],
)
def test_a_forgery_in_float16_is_found(in_float16, forge, check, said):
    commit(in_float16)
    forge(in_float16)
    found = wrong(check)
    assert any(said in line for line in found), found


def test_nothing_is_found_in_honest_weights_in_float16(in_float16):
    commit(in_float16)
    assert [wrong(check) for check in ("records", "sources", "history", "weights")] == [[]] * 4


def test_weights_in_float16_are_measured_and_told_apart_from_the_runs_own(in_float16, capsys):
    paper = load_paper("toy")
    ((file, record),) = with_weights(paper).items()
    measured = measure_record(paper, record, recorded_data(paper, record, None), paths.ROOT / file)
    assert measured.metrics == record.metrics_of_file == record.weights.float16.metrics
    measure_published(paper, None, None, "cpu", as_json=False)
    told = capsys.readouterr()
    assert f"(seed {record.seed} in float16, the same)" in told.out
    assert f"rounded to float16; its sha256 is {file_sha256(paths.ROOT / file)}. It measures test error" in told.err


def test_that_the_file_is_not_what_was_rounded_training_again_finds(in_float16, monkeypatch):
    paper, root = load_paper("toy"), in_float16
    seed = json.loads(published_line(root).read_text())["seed"]

    def trained(record, tree, runs, data_dir):
        """What the run left, since training gives it again."""
        left = shutil.copytree(root / f"runs/toy/line/full-official/seed-{seed}", runs / "seed")
        return read_record(left / "record.json")

    monkeypatch.setattr("common.publishing.rerun._trained", trained)
    assert rerun(paper, records_of(paper, "line", seed), None)[0] is True
    other_rounded_weights(root)
    assert wrong("weights") == []
    stands, found = rerun(paper, records_of(paper, "line", seed), None)
    assert stands is False
    assert found.endswith(f"but rounded to float16 they are not those of {WEIGHTS}/line.safetensors")


# ---- what only training again finds ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("forge", "said"),
    [
        (
            another_metric,
            ": the very bits of the record, but test_error (last) is 10.0, recorded 9.0; its curves differ",
        ),
        (worst_dropped, ", on the same kind of machine: other bits than the record's"),
    ],
)
def test_what_was_forged_before_it_was_committed_is_found_by_training_again_only(new, at, forge, said):
    root = at(new)
    forge(root)
    rebuild()
    commit(root)
    assert {check: wrong(check) for check in verify.CHECKS} == {check: [] for check in verify.CHECKS}
    paper = load_paper("toy")
    stands, found = rerun(paper, records_of(paper, "line", 1), None)
    assert stands is False
    assert found.startswith(f"trained again by the sources of {git(root, 'rev-parse', 'HEAD~1')[:7]}{said}")
