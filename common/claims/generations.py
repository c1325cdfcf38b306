"""Earlier generations of records: what was published before the seeds were run again by newer sources or elsewhere."""

import json
from collections.abc import Sequence
from pathlib import Path

from common.base import paths
from common.base.files import write_whole
from common.base.schema import Checked, read
from common.claims.papers import Paper
from common.claims.rows import paper_rows
from common.training.provenance import Environment
from common.training.records import FinishedRecord, Record


class Generation(Checked):
    """One measured value of records that were replaced, all seeds of one variant and edition at once.

    Attributes:
        commits: that the seeds ran from.
        processors: that they ran on.
        same_bits: how many of its seeds ended with the same bits in the next generation.
    """

    paper: str
    variant: str
    edition: str
    metric: str
    protocol: str
    mean: float
    sd: float | None
    n: int
    commits: list[str]
    processors: list[str]
    same_bits: int


class Generations(Checked):
    """The content of results/generations.json, the oldest first."""

    generations: list[Generation] = []


def generations_file() -> Path:
    return paths.RESULTS / "generations.json"


def earlier_generations(paper: str | None = None) -> list[Generation]:
    """All that are kept, or one paper's.

    Raises:
        UsageError: results/generations.json cannot be read.
    """
    if not generations_file().exists():
        return []
    return [each for each in read(generations_file(), Generations).generations if paper in (None, each.paper)]


def keep_generation(paper: Paper, replaced: Sequence[Record], by: Sequence[Record]) -> None:
    """Add what the replaced records say, in the metrics that have a claim or appear on the front page.

    Args:
        replaced: all records of one variant and edition.
        by: the records that take their places.
    """
    rows = paper_rows(paper, list(replaced))
    told = [row for row in rows if row.summary and (row.printed or row.metric in paper.headline)]
    commits = list(dict.fromkeys(record.code.short_commit for record in replaced))
    processors = list(dict.fromkeys(processor(record.environment) for record in replaced))
    new = [
        Generation(
            paper=paper.name,
            variant=row.variant,
            edition=row.edition or "",
            metric=row.metric or "",
            protocol=row.protocol or "",
            mean=row.summary.mean,
            sd=row.summary.spread.sd if row.summary.spread else None,
            n=row.summary.n,
            commits=commits,
            processors=processors,
            same_bits=_same_bits(replaced, by),
        )
        for row in told
        if row.summary
    ]
    content = Generations(generations=[*earlier_generations(), *new]).model_dump()
    write_whole(generations_file(), (json.dumps(content, indent=1) + "\n").encode())


def processor(used: Environment) -> str:
    return f"{used.processor} ({used.instruction_set})" if used.instruction_set else used.processor


def _same_bits(replaced: Sequence[Record], by: Sequence[Record]) -> int:
    bits = {record.seed: record.weights.sha256 for record in by if isinstance(record, FinishedRecord)}
    old = [record for record in replaced if isinstance(record, FinishedRecord)]
    return sum(bits.get(record.seed) == record.weights.sha256 for record in old)
