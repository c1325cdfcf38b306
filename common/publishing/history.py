"""What the git history knows of published records: the sources that they ran from, and what was committed before."""

import contextlib
import datetime
import json
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.base import paths
from common.base.errors import UsageError
from common.claims.papers import Paper
from common.publishing.checks import differences, place
from common.training.provenance import GitFailed, ask_git, git, source_hash
from common.training.records import Record, ReleasedRecord, published_records, published_released

ONE_DAY = datetime.timedelta(days=1)  # by which dates may differ from one place to another


class NoHistory(Exception):
    """There is no history to ask."""


def require_history() -> None:
    """
    Raises:
        NoHistory: the folder is not under git.
    """
    try:
        top = ask_git("rev-parse", "--show-toplevel")
    except GitFailed as failure:
        raise NoHistory(f"there is no git history here to ask ({failure})") from None
    if top != str(paths.ROOT.resolve()):
        raise NoHistory("there is no git history here to ask")


def in_history(commit: str) -> bool:
    """Whether what is checked out came from this commit, or what is just being merged into it.

    Raises:
        NoHistory: nobody can say, since the clone is shallow.
    """
    if any(git("merge-base", "--is-ancestor", commit, head) is not None for head in ("HEAD", "MERGE_HEAD")):
        return True
    if git("rev-parse", "--is-shallow-repository") == "true":
        raise NoHistory(f"the history here does not reach back to {commit[:7]}")
    return False


@contextlib.contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """A temporary folder with common/ and papers/ as they were at a commit.

    Raises:
        UsageError: it has no such folders.
    """
    with tempfile.TemporaryDirectory() as folder:
        archive, tree = Path(folder, "archive.tar"), Path(folder, "tree")
        if git("archive", "--output", str(archive), commit, "--", "common", "papers") is None:
            raise UsageError(f"{commit[:7]} has no common/ and papers/.")
        with tarfile.open(archive) as tar:
            tar.extractall(tree, filter="data")
        yield tree


# ---- the sources -----------------------------------------------------------------------------------


def by_commit(paper: Paper) -> dict[str, list[Record | ReleasedRecord]]:
    """A paper's published records by the commit that they say they ran from. A record without one is wrong already."""
    found: dict[str, list[Record | ReleasedRecord]] = {}
    for record in [*published_records(paper.name), *published_released(paper.name)]:
        if record.code.commit:
            found.setdefault(record.code.commit, []).append(record)
    return found


def source_faults(paper: Paper, commit: str, records: list[Record | ReleasedRecord]) -> list[str]:
    """Where records and the commit that they say they ran from do not belong together.

    Raises:
        NoHistory: the folder is not under git, or its history does not reach back to the commit.
    """
    require_history()
    if not in_history(commit):
        return [f"{place(record)}: its commit {commit[:7]} is not in the history" for record in records]
    with checked_out(commit) as tree:
        there = (tree / "papers" / paper.name / "train.py").exists()
        sources = source_hash(paper.name, tree) if there else None
    made = datetime.date.fromisoformat(git("show", "--no-patch", "--format=%cs", commit) or "")
    faults = []
    for record in records:
        if record.code.sources != sources:
            faults.append(f"{place(record)}: its sources are not those of its commit {commit[:7]}")
        if datetime.date.fromisoformat(record.date) < made - ONE_DAY:
            faults.append(f"{place(record)}: is dated {record.date}, but its commit {commit[:7]} is of {made}")
    return faults


# ---- what was committed before -----------------------------------------------------------------------


def edit_faults(paper: Paper) -> list[str]:
    """Published records that contradict what was committed of the same run or weights, and seeds that were left out
    after they had been committed.

    Raises:
        NoHistory: the folder is not under git.
    """
    require_history()
    records = [*published_records(paper.name), *published_released(paper.name)]
    now = {place(record): json.loads(record.path().read_text(encoding="utf-8")) for record in records}
    committed = _committed(paper)
    faults = [
        f"{file}: {fault}"
        for file, record in now.items()
        for file_then, then in committed
        for fault in _contradictions(record, then, file, file_then)
    ]
    gone = [f"{file}: was committed and is gone" for file, _ in committed if _left_out(paper, file, now)]
    return list(dict.fromkeys([*faults, *gone]))


def _committed(paper: Paper) -> list[tuple[str, dict[str, Any]]]:
    """Every version of every record that the history has, with its file; one that cannot be read says nothing."""
    folder = (paths.RECORDS / paper.name).relative_to(paths.ROOT).as_posix()
    listed = (git("rev-list", "--objects", "HEAD", "--", folder) or "").splitlines()
    blobs = [line.split(" ", 1) for line in listed if line.endswith(".json")]
    return [(file, _content(git("cat-file", "blob", blob))) for blob, file in blobs]


def _content(text: str | None) -> dict[str, Any]:
    try:
        content = json.loads(text or "{}")
    except ValueError:  # conflict markers, say: the history cannot be mended
        return {}
    return content if isinstance(content, dict) else {}


def _contradictions(now: dict[str, Any], then: dict[str, Any], file: str, file_then: str) -> list[str]:
    """What cannot be so of a record and of what was committed as `then`."""
    if _run(now) == _run(then):
        if file != file_then:
            return [f"is the run that was committed as {file_then}"]
        ours, theirs = _kept(now), _kept(then)
        changed = [field for field in ours if field in theirs and ours[field] != theirs[field]]
        return [f"{', '.join(changed)} changed after it was committed"] if changed else []
    if now["weights"] is None or _kept(now)["weights"] != _kept(then)["weights"]:
        return []
    if "seed" in now and (now["variant"], now["seed"]) != (then["variant"], then["seed"]):
        return [f"has the weights that were committed as {file_then}"]
    if file == file_then and now["code"]["sources"] == then["code"]["sources"]:
        return [f"{fault} of the same weights" for fault in differences(now["metrics"], then["metrics"])]
    return []


def _run(record: dict[str, Any]) -> object:
    """How long it took, to the last digit: no two runs share it."""
    return record.get("times") or record.get("seconds")


def _kept(record: dict[str, Any]) -> dict[str, Any]:
    """What nobody may change in a record. That its weights are published is added later, and what they measure where
    they are published in float16."""
    weights = record.get("weights") or {}
    rounded = {"float16": weights["float16"]} if weights.get("float16") else {}
    return record | {"weights": weights.get("sha256")} | rounded


def _left_out(paper: Paper, file: str, now: dict[str, Any]) -> bool:
    """Whether a seed that was committed is not here any more, though others of the same variant and edition are."""
    folder, _, name = file.rpartition("/")
    if file in now or not name.startswith("seed-") or not any(other.startswith(f"{folder}/") for other in now):
        return False
    variant, seed = folder.split("/")[-2], int(name.removeprefix("seed-").removesuffix(".json"))
    return variant in paper.variants and seed < paper.variants[variant].seeds
