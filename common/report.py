"""The table that closes a run: the paper, the published records, this run."""

import json
from dataclasses import dataclass

import click

from common import layout
from common import verdict as v
from common.metrics import METRICS
from common.papers import Paper
from common.progress import say, warn
from common.records import Record, published_records, published_seed
from common.rows import Row, paper_rows, written
from common.show import print_table

HOLDS = (v.REPRODUCED, v.EXCEEDS)


@dataclass
class Closing:
    """Whether `--check` may be content, and if not, why not."""

    all_claims_hold: bool
    why_not: str


def report(paper: Paper, records: list[Record], reused: list[bool], as_json: bool) -> Closing:
    """Print the closing table of one run of one variant, all seeds."""
    first = records[0]
    rows = [row for row in paper_rows(paper, records) if row.variant == first.variant and row.records]
    published = {
        (r.metric, r.protocol): r
        for r in paper_rows(paper, published_records(paper.name))
        if r.variant == first.variant and r.records
    }
    lines = [_line(row, published.get((row.metric, row.protocol)), paper) for row in rows]
    bits = [
        compare_bits(record) for record in records if not (record.standin or record.modified or record.preset != "full")
    ]
    if as_json:
        click.echo(
            json.dumps({"rows": [row.as_dict() for row in rows], "bits": bits, "standin": first.standin}, indent=1)
        )
    else:
        seeds = ", ".join(str(record.seed) for record in records)
        heading = f"{paper.name} / {first.variant}, {first.preset}, {first.data.edition} data, seeds {seeds}"
        print_table(
            heading, ["metric", "protocol", "paper", "published here", "this run", "verdict of this run"], lines
        )
        for text in bits:
            click.echo(text)
    for record, was_reused in zip(records, reused, strict=True):
        if was_reused:
            say(f"seed {record.seed} was finished before and is shown as it was; --fresh runs it again.")
    _say_what_it_is_not(first)
    return _closing(paper, rows, first)


def _line(row: Row, published: Row | None, paper: Paper) -> list[str]:
    claim = next(
        (c for c in paper.claims if (c.variant, c.metric, c.protocol) == (row.variant, row.metric, row.protocol)), None
    )
    unit = f" {METRICS[row.metric].unit}"
    reported = f"{claim.reported} ± {claim.tolerance:g}{unit}".strip() if claim else "–"
    verdict = row.verdict if row.claim or not claim else "none: not the paper's data"
    return [
        METRICS[row.metric].label,
        row.protocol,
        reported,
        written(published)[1] if published else "–",
        written(row)[1],
        verdict,
    ]


def _say_what_it_is_not(record: Record) -> None:
    if record.standin:
        warn("STAND-IN DATA: these numbers are not measured on the paper's data and say nothing about it.")
    elif record.modified:
        warn("MODIFIED RECIPE: this is not the paper's run and cannot be published.")
    elif record.preset != "full":
        warn(f"PRESET {record.preset}: a shortened run, only to see it learn.")


def _closing(paper: Paper, rows: list[Row], record: Record) -> Closing:
    if record.standin or record.modified or record.preset != "full":
        return Closing(False, "only a full, unmodified run on real data can settle a claim.")
    verdicts = {row.claim: row.verdict for row in rows if row.claim}
    wanted = [claim.id for claim in paper.claims if claim.variant == record.variant]
    open_claims = [
        f"{claim} is {verdicts.get(claim, v.NOT_ATTEMPTED)}" for claim in wanted if verdicts.get(claim) not in HOLDS
    ]
    return Closing(not open_claims, ", ".join(open_claims) + ".")


def compare_bits(record: Record) -> str:
    """Whether this run has the very bits of the published record of its seed, and if not, what differs."""
    published = published_seed(record)
    if published is None or published.weights is None:
        return f"seed {record.seed}: no published record of this seed to compare with."
    path = published.path().relative_to(layout.ROOT)
    if record.weights.sha256 == published.weights.sha256:
        return f"seed {record.seed}: the very bits of the published record ({path})."
    differing = _differences(record, published)
    reason = f"these differ: {', '.join(differing)}" if differing else "nothing that the record names differs"
    return f"seed {record.seed}: not the bits of {path}; {reason}."


def _differences(record: Record, published: Record) -> list[str]:
    ours, theirs = record.environment.model_dump(), published.environment.model_dump()
    parts = [f"{name} ({theirs[name]} there, {ours[name]} here)" for name in ours if ours[name] != theirs[name]]
    parts += ["recipe"] if record.recipe_hash != published.recipe_hash else []
    parts += ["data"] if record.data != published.data else []
    parts += ["sources"] if record.code.sources != published.code.sources else []
    return parts
