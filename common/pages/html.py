"""results/index.html: one file that opens from disk, without a network."""

from dataclasses import dataclass
from pathlib import Path

from common.base import paths
from common.claims import verdict as v
from common.claims.comparison import Comparison, Evidence, ReleasedEvidence, seed_of
from common.claims.ideas import IdeaRow, measured_difference, measured_on, reported_difference
from common.claims.rows import Row, difference, label, measured, released_as, remark, reported_as, with_unit
from common.pages.figures import FOREST, GROWTH, figures_of
from common.pages.in_short import InShort, coverage, in_short

# What the tick box of each kind of row says. Those that are folded are not ticked at first.
KINDS = {
    "claim": "claims, and what failed",
    "other-data": "on other data than the paper's",
    "source": "numbers that others printed",
    "detail": "details of large tables",
    "unprinted": "no published number",
}
FOLDED = ("detail", "unprinted")
TONES = {
    "good": (v.REPRODUCED, v.EXCEEDS, v.CONFIRMED, v.HOLDS),
    "fair": (v.CONSISTENT,),
    "open": (v.INCONCLUSIVE, v.LOWER, v.HIGHER, v.TOO_FEW_SEEDS),
    "bad": (v.NOT_REPRODUCED, v.NOT_CONFIRMED, v.DOES_NOT_HOLD, v.FAILED),
}
WORDS = (
    label, reported_as, measured, difference, remark, released_as, with_unit, seed_of, measured_on,
    reported_difference, measured_difference,
)  # fmt: skip


@dataclass(frozen=True)
class Line:
    """A row of the table, and what it rests on."""

    anchor: str
    row: Row
    command: str | None
    evidence: Evidence | None
    released: ReleasedEvidence | None

    @property
    def kind(self) -> str:
        printed = self.row.printed
        if self.row.verdict in (v.FAILED, v.OTHER_DATA):
            return "claim" if self.row.verdict == v.FAILED else "other-data"
        if printed is None:
            return "unprinted"
        return "source" if printed.source else "detail" if printed.detail else "claim"

    @property
    def tone(self) -> str:
        """Of the verdict: a number that others printed speaks neither for the paper nor against it."""
        return "" if self.kind == "source" else tone(self.row.verdict)

    @property
    def in_margins(self) -> float | str:
        """The difference to the printed number in units of its margin, to sort by."""
        row = self.row
        return row.difference.mean / row.printed.tolerance if row.difference and row.printed else ""


@dataclass(frozen=True)
class Section:
    """What the page says of one paper."""

    comparison: Comparison
    short: InShort
    lines: list[Line]
    ideas: list[tuple[str, IdeaRow]]  # by their anchors
    links: dict[str, str]
    figures: dict[str, str]  # captions by name


def page(comparisons: list[Comparison]) -> str:
    """The whole file."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {word.__name__: word for word in WORDS}
    environment.globals |= {"tone": tone}
    sections = [_section(comparison) for comparison in comparisons]
    return environment.get_template("index.html").render(
        coverage=coverage(comparisons),
        ideas=any(of.ideas for of in comparisons),
        sections=sections,
        forest=_if_drawn(FOREST),
        growth=_if_drawn(GROWTH),
        kinds=KINDS,
        folded=FOLDED,
        verdicts=[*v.WORDS, v.CONFIRMED, v.NOT_CONFIRMED],
    )


def _if_drawn(figure: str) -> str | None:
    return f"figures/{figure}" if (paths.FIGURES / figure).exists() else None


def tone(verdict: str) -> str:
    return next((name for name, verdicts in TONES.items() if verdict in verdicts), "")


def _section(comparison: Comparison) -> Section:
    paper = comparison.paper
    folders = {"records": paths.RECORDS / paper.name, "weights": paths.WEIGHTS / paper.name}
    links = {what: f"{what}/{paper.name}/" for what, folder in folders.items() if folder.is_dir()}
    if (paper.folder / "README.md").exists():
        links = {"its page": f"../papers/{paper.name}/README.md"} | links
    links = paper.citation.links | links
    ideas = list(zip(comparison.idea_anchors, comparison.ideas, strict=True))
    return Section(comparison, in_short(comparison), _lines(comparison), ideas, links, figures_of(paper))


def _lines(comparison: Comparison) -> list[Line]:
    """In the order of every table, but first what was measured."""
    evidence = {(of.variant, of.edition): of for of in comparison.evidence}
    released = {record.name: of for of in comparison.released_evidence for record in of.records}
    commands = {of.variant: of.command for of in comparison.not_attempted}
    lines = []
    for anchor, row in zip(comparison.anchors, comparison.rows, strict=True):
        of = evidence.get((row.variant, row.edition or ""))
        by = released[row.released.record] if row.released else None
        lines.append(Line(anchor, row, of.command if of else commands[row.variant], of, by))
    return sorted(lines, key=lambda line: not (line.evidence or line.released))
