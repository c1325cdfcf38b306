"""The table that closes a run: the paper, the published records, this run."""

import shlex
from dataclasses import dataclass
from pathlib import Path

import click

from common.base import paths
from common.base.errors import CheckFailed, NumbersError
from common.base.progress import warn
from common.base.terminal import print_table
from common.claims import verdict as v
from common.claims.papers import Paper
from common.claims.rows import UNVERIFIED, Row, label, measured, paper_rows, reported_as
from common.training.records import FailedRecord, FinishedRecord, Record, published_records, published_seed
from common.training.run import folder_name
from common.training.weights import RUN_WEIGHTS

HOLDS = (v.REPRODUCED, v.EXCEEDS)
KEPT = {  # the files that a run leaves for each seed
    "record.json": "all numbers",
    RUN_WEIGHTS: "the network",
    "curves.csv": "for `plot`",
}
OF_PUBLISHED = ("edition", "mean", "sd", "n")  # what is said about them beside a run, as data


@dataclass(frozen=True)
class Closing:
    """What a run of one variant, all its seeds, ends with."""

    paper: Paper
    records: list[Record]  # failed ones too
    rows: list[Row]
    published: list[Row]
    bits: list[str]  # for each seed that could be published: whether it has the bits of the published record
    folder: Path  # of the run, with a folder for each seed
    command: str | None  # that runs all the seeds of a verdict, where some are missing

    @property
    def first(self) -> Record:
        """For what all seeds have in common."""
        return self.records[0]

    @property
    def failed(self) -> list[int]:
        return [record.seed for record in self.records if isinstance(record, FailedRecord)]

    def as_dict(self) -> dict:
        return {
            "paper": self.paper.name,
            "variant": self.first.variant,
            "preset": self.first.preset,
            "modified": self.first.modified,
            "standin": self.first.standin,
            "seeds": [record.seed for record in self.records],
            "failures": [{"seed": r.seed, "failure": r.failure} for r in self.records if isinstance(r, FailedRecord)],
            "rows": [self._row_as_dict(row) for row in self.rows],
            "bits": self.bits,
            "folder": str(self.folder),
            "all_seeds": self.command,
        }

    def _row_as_dict(self, row: Row) -> dict:
        beside = self.beside(row)
        published = beside and {name: value for name, value in beside.as_dict().items() if name in OF_PUBLISHED}
        return row.as_dict() | {"verdict": self.verdict(row), "published": published}

    def verdict(self, row: Row) -> str | None:
        """None in a run that is not the paper's: its numbers settle nothing. That every seed failed is always said."""
        return row.verdict if self.first.counts_for_paper or row.verdict == v.FAILED else None

    def beside(self, row: Row) -> Row | None:
        """What is published on the same: for the run's own edition where there is one, else for the first, which is the
        dataset's official one."""
        of_same = [other for other in self.published if _subject(other) == _subject(row)]
        return min(of_same, key=lambda other: other.edition != row.edition, default=None)

    def require_no_failure(self) -> None:
        """
        Raises:
            NumbersError: seeds failed.
        """
        if self.failed:
            seeds = ", ".join(map(str, self.failed))
            raise NumbersError(f"A NaN or an infinity appeared in seed {seeds} of {self.first.variant}.")

    def require_claims(self) -> None:
        """
        Raises:
            CheckFailed: a claim of the variant is not settled, or not in the paper's favour.
        """
        if not self.first.counts_for_paper:
            raise CheckFailed("--check: only a full, unmodified run on real data can settle a claim.")
        verdicts = {row.claim.id: row.verdict for row in self.rows if row.claim}
        wanted = [claim.id for claim in self.paper.claims if claim.variant == self.first.variant]
        words = [(claim, verdicts.get(claim, v.NOT_ATTEMPTED)) for claim in wanted]
        open_claims = [f"{claim} is {word}" for claim, word in words if word not in HOLDS]
        if open_claims:
            raise CheckFailed(f"--check: {', '.join(open_claims)}.")


def close(paper: Paper, records: list[Record], runs_dir: Path, words: list[str]) -> Closing:
    """Set the records of one run of one variant beside the paper and the published ones.

    Args:
        words: the command.
    """
    first = records[0]
    variant = first.variant
    name = folder_name(first.preset, first.data.edition, first.recipe_hash if first.modified else None)

    def rows(of: list[Record]) -> list[Row]:
        return [row for row in paper_rows(paper, of) if row.variant == variant and row.records]

    bits = [
        compare_bits(record) for record in records if isinstance(record, FinishedRecord) and record.counts_for_paper
    ]
    own = rows(records)
    few = first.counts_for_paper and any(row.verdict == v.TOO_FEW_SEEDS for row in own)
    command = _for_all_seeds(paper, variant, words) if few else None
    folder = runs_dir / paper.name / variant / name
    return Closing(paper, records, own, rows(published_records(paper.name)), bits, folder, command)


def _for_all_seeds(paper: Paper, variant: str, words: list[str]) -> str:
    """The command with the seeds that make a verdict. Those that are finished are not run again."""
    kept = [word for word in words[1:] if word != "--fresh" and not word.startswith("--seeds=")]
    if "--seeds" in kept:
        at = kept.index("--seeds")
        del kept[at : at + 2]
    seeds = ",".join(map(str, range(paper.variants[variant].seeds)))
    return shlex.join(["bash", "reproduce.sh", paper.name, *kept, "--seeds", seeds])  # words[0] may be `all`


def print_closing(closing: Closing) -> None:
    """The table that closes a run: the paper, the published records, this run."""
    first = closing.first
    seeds = ", ".join(str(record.seed) for record in closing.records)
    heading = f"{closing.paper.name} / {first.variant}, {first.preset}, {first.data.edition} data, seeds {seeds}"
    columns = ["metric", "protocol", "paper", "published here", "this run", "verdict of this run"]
    print_table(heading, columns, [_line(row, closing) for row in closing.rows])
    for text in closing.bits:
        click.echo(text)
    there = [name for name in KEPT if any((closing.folder / f"seed-{r.seed}" / name).exists() for r in closing.records)]
    click.echo(f"Kept in {closing.folder}, for each seed: {', '.join(f'{name} ({KEPT[name]})' for name in there)}.")
    if closing.command:
        click.echo(f"A verdict takes {closing.paper.variants[first.variant].seeds} seeds: {closing.command}")


def _line(row: Row, closing: Closing) -> list[str]:
    beside, verdict = closing.beside(row), closing.verdict(row) or "–"
    published = measured(beside) if beside else "–"
    if beside and beside.edition != row.edition:
        published += f", {beside.edition}"
    return [
        label(row),
        row.protocol or "–",
        reported_as(row) + (f" ({UNVERIFIED})" if row.printed and row.note.startswith(UNVERIFIED) else ""),
        published,
        measured(row),
        verdict,
    ]


def _subject(row: Row) -> tuple[str, str | None, str | None]:
    return row.variant, row.metric, row.protocol


def say_what_it_is_not(closing: Closing) -> None:
    """Warn where a run says nothing about the paper."""
    record = closing.first
    if record.standin:
        warn("STAND-IN DATA: these numbers are not measured on the paper's data and say nothing about it.")
    elif record.modified:
        warn("MODIFIED RECIPE: this is not the paper's run and cannot be published.")
    elif record.preset != "full":
        warn(f"PRESET {record.preset}: a shortened run, only to see it learn.")


def compare_bits(record: FinishedRecord) -> str:
    """Whether this run has the very bits of the published record of its seed, and if not, what differs."""
    published = published_seed(record)
    if not isinstance(published, FinishedRecord):
        return f"seed {record.seed}: no published record of this seed to compare with."
    path = published.path().relative_to(paths.ROOT)
    if record.weights.sha256 == published.weights.sha256:
        return f"seed {record.seed}: the very bits of the published record ({path})."
    differing = _differences(record, published)
    reason = f"these differ: {', '.join(differing)}" if differing else "nothing that the record names differs"
    return f"seed {record.seed}: not the bits of {path}; {reason}."


def _differences(record: FinishedRecord, published: FinishedRecord) -> list[str]:
    ours, theirs = record.environment.model_dump(), published.environment.model_dump(exclude_unset=True)
    parts = [f"{name} ({theirs[name]} there, {ours[name]} here)" for name in theirs if ours[name] != theirs[name]]
    parts += ["recipe"] if record.recipe_hash != published.recipe_hash else []
    parts += ["data"] if record.data != published.data else []
    parts += ["sources"] if record.code.sources != published.code.sources else []
    return parts
