"""The generated Markdown: results/README.md, and the blocks of the front page and of the papers' pages."""

from common.base import paths
from common.base.metrics import METRICS
from common.claims import verdict as v
from common.claims.comparison import Comparison, Ranking, ReleasedEvidence, seed_of
from common.claims.generations import earlier_generations
from common.claims.ideas import IdeaRow, measured_difference, measured_on, reported_difference
from common.claims.papers import AlsoReported, Claim, Paper
from common.claims.rows import (
    UNVERIFIED,
    Row,
    difference,
    label,
    mean_and_spread,
    measured,
    released_as,
    remark,
    reported_as,
    with_unit,
)
from common.pages.figures import FOREST, GROWTH, figures_of
from common.pages.in_short import InShort, coverage, in_short, in_words
from common.pages.speed import Speed

COLUMNS = ["variant", "metric", "protocol", "edition", "paper says", "here", "difference", "verdict"]
RELEASED_COLUMN = "released weights, measured here"
IDEA_COLUMNS = ["idea", "with the part / without it", "metric", "paper says", "here", "verdict"]
ABOUT_IDEAS = (
    "Ideas are what a paper claims for a part of its method. *Paper says* is the difference that the part makes "
    "(with it minus without it) as printed or, where none is printed, its direction; *here* is the mean difference "
    "between runs of the same seed, with its 90 % interval."
)
ABOUT_STANDING = (
    "*All claims*: the numbers of one evaluation, such as overall accuracy, average accuracy and kappa of the same "
    "runs, are one claim, which has the worst of their verdicts. By released weights each printed number is one."
)
ABOUT_TRAINED = (
    "Every number of these claims that was measured by training. Details, and numbers that somebody else printed, are "
    "in [results/README.md](results/README.md):"
)
POWER_SEEDS, POWER_SPREADS = (3, 5, 10), (0.25, 0.5, 1.0)
UNVERIFIED_NOTE = f"- *{UNVERIFIED}*: nobody could check the printed number against the paper."


def results_page(comparisons: list[Comparison]) -> str:
    """results/README.md: everything."""
    parts = [
        "# Results\n\nGenerated from the records in `records/` by `bash reproduce.sh table`; do not edit. "
        "The same as data: [comparison.json](comparison.json), [comparison.csv](comparison.csv), "
        "[comparison.tex](comparison.tex), [ideas.json](ideas.json), [index.html](index.html).\n\n"
        f"{about_results('../')}\n\n{ABOUT_IDEAS}"
    ]
    parts += filter(None, [_forest("")])
    for comparison in comparisons:
        citation = comparison.paper.citation
        parts += [f"## {comparison.paper.name}: {citation.title} ({citation.year})", _cited(comparison.paper)]
        parts += _measured(comparison, comparison.attempted, everything=True)
        parts += _released_beside(comparison)
        parts += [*_evidence(comparison), *comparison.rounded]
        parts += _ideas(comparison, everything=True)
        parts += _not_attempted(comparison, everything=True)
    return "\n\n".join([*parts, "## The power of a verdict", power_table()]) + "\n"


def about_results(root: str) -> str:
    """How to read a table of rows; `root` is the way to the front page."""
    return (
        "*Paper says* is the printed number ± the margin within which it counts as reproduced, set before the first "
        "run. *Here* is mean ± standard deviation over n seeds; *difference* is that mean minus the printed number, "
        "with its 90 % interval. *Released weights, measured here*: what weights that others trained score under our "
        f"evaluation. How a verdict is reached: [README]({root}README.md#how-to-read-a-verdict)."
    )


def paper_blocks(comparison: Comparison, page: str) -> dict[str, str]:
    """What is generated on a paper's page, by the name of its markers; `page` is the page without its results."""
    return {
        "in short": short_block(comparison),
        "reported": reported_block(comparison.paper),
        "results": paper_block(comparison, page),
    }


def front_blocks(comparisons: list[Comparison], speeds: list[Speed]) -> dict[str, str]:
    """What is generated on the front page, by the name of its markers."""
    return {
        "coverage": coverage_block(comparisons),
        "results": front_block(comparisons),
        "power": power_table(),
        "speed": speed_block(comparisons, speeds),
    }


def paper_block(comparison: Comparison, page: str) -> str:
    """The text between the markers `results` of a paper's page; figures that its other text, `page`, shows are left
    out."""
    overview = comparison.without_details()
    parts = [about_results("../../")] if overview.attempted else []
    parts += [*_measured(overview, overview.attempted), *_released_beside(comparison), *_ideas(comparison)]
    parts += [*_not_attempted(overview), *_also_reported(comparison)]
    if left_out := len(comparison.rows) - len(overview.rows):
        parts.append(f"{left_out} more rows, in detail: [results/README.md](../../results/README.md).")
    parts += _earlier_generations(comparison)
    parts += [*_links(comparison.paper), *comparison.rounded]
    folder = f"../../results/figures/{comparison.paper.name}"
    for name, caption in figures_of(comparison.paper).items():
        if f"({folder}/{name}.png)" not in page:
            parts.append(f"![{caption}]({folder}/{name}.png)\n*{caption}*")
    return "\n\n".join(parts)


def front_block(comparisons: list[Comparison]) -> str:
    """The text between the markers `results` of the front page."""
    verdicts = [[_link(c), *_cells(row)] for c in comparisons for row in c.front_rows if row.records]
    ideas = [[_link(c), *_idea_cells(row, "results/")] for c in comparisons for row in c.ideas]
    beside = [_measured_beside(c, rows) for c in comparisons for rows in c.beside]
    released = [_by_released(c, rows) for c in comparisons for rows in c.by_released]
    standing = [[_link(c), (short := in_short(c)).claimed, _findings(short), standing_in_words(c)] for c in comparisons]
    beside_columns = ["paper", "variant", "edition", "metric", "here, by protocol"]
    released_columns = ["paper", "variants with this network", "metric", "protocol", "paper says", RELEASED_COLUMN]
    parts = [
        _titled("", standing, ["paper", "claimed", "measured here", "all claims"]),
        ABOUT_STANDING,
        _titled(ABOUT_TRAINED, verdicts, ["paper", *COLUMNS]),
        _forest("results/"),
        _titled(ABOUT_IDEAS, ideas, ["paper", *IDEA_COLUMNS]),
        _folded("Weights that the authors or a library released, under our evaluation", released, released_columns),
        _folded("Measured where the paper prints nothing, or on data other than the paper's", beside, beside_columns),
    ]
    return "\n\n".join(filter(None, parts))


def _titled(title: str, lines: list[list[str]], columns: list[str]) -> str:
    return "\n\n".join(filter(None, [title, markdown_table(lines, columns)])) if lines else ""


def _folded(title: str, lines: list[list[str]], columns: list[str]) -> str:
    """A table that opens at a click, for it is long and of interest to few."""
    summary = f"<summary>{title}: {len(lines)} rows</summary>"
    return f"<details>{summary}\n\n{markdown_table(lines, columns)}\n\n</details>" if lines else ""


def coverage_block(comparisons: list[Comparison]) -> str:
    """The first paragraph of the front page."""
    return (
        "Classic deep-learning papers, each rebuilt in PyTorch from its text (or, where the text was not available, "
        "from the authors' code: its page says so), run, and measured against what it printed, with a verdict by one "
        f"rule for all. {coverage(comparisons)}"
    )


def speed_block(comparisons: list[Comparison], speeds: list[Speed]) -> str:
    """How many times as fast as the straightforward way every job is on each kind of machine, and how time grows."""
    jobs = dict.fromkeys((job.paper, job.job) for of in speeds for job in of.jobs)
    if not jobs:
        return "Not measured yet."
    links = {of.paper.name: _link(of) for of in comparisons}
    found = [{(job.paper, job.job): f"{job.ratio:.1f} ({job.share:.0%})" for job in of.jobs} for of in speeds]
    lines = [[links.get(paper, paper), job, *(cells.get((paper, job), "–") for cells in found)] for paper, job in jobs]
    when = "; ".join(f"{of.machine}: {of.date}, commit {of.commit[:7]}, torch {of.torch}" for of in speeds)
    table = markdown_table(lines, ["paper", "job", *(of.kind for of in speeds)])
    parts = [table, f"Measured on {when}."]
    if (paths.FIGURES / GROWTH).exists():
        works = ", ".join(dict.fromkeys(grown.work for of in speeds for grown in of.growth))
        parts.append(f"![seconds against size, on logarithmic scales: {works}](results/figures/{GROWTH})")
    return "\n\n".join(parts)


def short_block(comparison: Comparison) -> str:
    """How a paper's page begins: three lines, then what and where the paper is."""
    short = in_short(comparison)
    lines = [
        f"- *Claimed*: {short.claimed}.",
        f"- *Measured here*: {_findings(short)}. All claims: {standing_in_words(comparison)}.",
        f"- *{short.about_why}*: {short.why}",
    ]
    return "\n".join(lines) + f"\n\n{_cited(comparison.paper)}"


def reported_block(paper: Paper) -> str:
    """What the paper reports: a line for each evaluation of a variant, a column for each metric. Details are left to
    results/README.md."""
    claims = [claim for claim in paper.claims if not claim.detail]
    metrics = [name for name in METRICS if any(claim.metric == name for claim in claims)]
    evaluations: dict[tuple[str, str], list[Claim]] = {}
    for claim in claims:
        evaluations.setdefault((claim.variant, claim.protocol), []).append(claim)
    variants: dict[tuple[str, ...], list[str]] = {}  # of the same numbers
    for (variant, protocol), numbers in evaluations.items():
        by_metric = {claim.metric: _printed(claim) for claim in numbers}
        places = "; ".join(dict.fromkeys(claim.where for claim in numbers))
        line = (protocol, *(by_metric.get(metric, "–") for metric in metrics), places)
        variants.setdefault(line, []).append(variant)
    if not variants:
        return "The paper prints no number that is a claim here."
    lines = [[", ".join(names), *line] for line, names in variants.items()]
    columns = ["variant", "protocol", *(METRICS[name].label for name in metrics), "printed in"]
    used = paper.meanings({claim.protocol for claim in claims})
    notes = [f"- *{name}*: {text}" for name, text in used.items()]
    notes += [f"- *{c.variant}*, {METRICS[c.metric].label}: {c.remark}" for c in claims if c.remark]
    if any(claim.spread for claim in claims):
        notes.append("- ±: the spread that the paper prints.")
    if any(claim.unverified for claim in claims):
        notes.append(UNVERIFIED_NOTE)
    if details := len(paper.claims) - len(claims):
        notes.append(f"- In detail, {details} more: [results/README.md](../../results/README.md).")
    return markdown_table(lines, columns) + "\n\n" + "\n".join(notes)


def _printed(claim: Claim) -> str:
    """The number as it is printed, with the spread that the paper gives and over how many runs."""
    spread = f" ± {claim.spread.sd:g}" if claim.spread else ""
    runs = f" ({claim.spread.runs} runs)" if claim.spread and claim.spread.runs else ""
    number = with_unit(f"{claim.reported}{spread}", claim.metric)
    return f"{number}{runs}" + (f" ({UNVERIFIED})" if claim.unverified else "")


def _findings(short: InShort) -> str:
    return "; ".join(of.text + (f": **{of.verdict}**" if of.verdict else "") for of in short.measured)


def standing_in_words(comparison: Comparison) -> str:
    """'27 not attempted; by released weights 13 confirmed'"""
    by_released = [f"by released weights {in_words(of)}"] if (of := comparison.released_standing) else []
    return "; ".join([in_words(comparison.standing) or "none", *by_released])


def _cited(paper: Paper) -> str:
    """Authors, title, venue and year, and where the paper and its code are."""
    of = paper.citation
    links = "".join(f" [{name}]({address})." for name, address in of.links.items())
    return f"{', '.join(of.authors)}, *{of.title}*, {of.venue}, {of.year}.{links}"


def _forest(results: str) -> str:
    """All claims in one figure, where it is drawn; `results` is the way to results/."""
    if not (paths.FIGURES / FOREST).exists():
        return ""
    return f"![every measured claim: its difference from the printed number, in margins]({results}figures/{FOREST})"


def _link(comparison: Comparison) -> str:
    return f"[{comparison.title}](papers/{comparison.paper.name}/README.md)"


def _measured_beside(comparison: Comparison, rows: list[Row]) -> list[str]:
    """The line of one variant's metric under all its protocols."""
    first = rows[0]
    return [
        _link(comparison),
        first.variant,
        first.edition or "–",
        label(first),
        "; ".join(f"{row.protocol}: {measured(row)}{_printed_for_other_data(row)}" for row in rows),
    ]


def _printed_for_other_data(row: Row) -> str:
    return f", where the paper prints {reported_as(row)} for its own data" if row.printed else ""


def _by_released(comparison: Comparison, rows: list[Row]) -> list[str]:
    """The line of one number that released weights were measured on, for all variants that have it."""
    first = rows[0]
    variants = ", ".join(row.variant for row in rows)
    return [
        _link(comparison),
        variants,
        label(first),
        first.protocol or "–",
        reported_as(first),
        _released(first),
    ]


# ---- parts ---------------------------------------------------------------------


def _measured(comparison: Comparison, rows: list[Row], everything: bool = False) -> list[str]:
    """The table of what was measured, and the notes that its words need; with `everything` also where the paper
    prints it, and what the protocols are."""
    if not rows:
        return ["Nothing has been measured yet."]
    described = {row.variant: comparison.paper.variants[row.variant].description for row in rows}
    notes = [f"- *{variant}*: {text}" for variant, text in described.items()]
    notes += _edition_notes(comparison, rows)
    if any(row.note.startswith(UNVERIFIED) for row in rows):
        notes.append(UNVERIFIED_NOTE)
    notes += [_over_examples(row, *row.over_examples) for row in rows if row.over_examples]
    lines, columns = [_cells(row) for row in rows], COLUMNS
    if any(row.released for row in rows):
        columns = [*columns, RELEASED_COLUMN]
        lines = [[*line, _released(row)] for line, row in zip(lines, rows, strict=True)]
        notes += [f"- {_by_whom(of)}: `{of.command}`" for of in comparison.released_evidence]
    if everything:
        remarked = [(row, row.claim.remark) for row in rows if row.claim and row.claim.remark]
        notes += [f"- *{row.variant}*, {label(row)}: {remark}" for row, remark in remarked]
        used = {row.protocol for row in rows if row.protocol}
        notes += [f"- *{name}*: {text}" for name, text in comparison.paper.meanings(used).items()]
        columns = [*columns, "printed in"]
        places = [_printed_in(row.claim) if row.claim else "–" for row in rows]
        lines = [[*line, place] for line, place in zip(lines, places, strict=True)]
    return [markdown_table(lines, columns), *(["\n".join(notes)] if notes else [])]


def _released_beside(comparison: Comparison) -> list[str]:
    """What released weights measure that check no claim."""
    lines = [
        [
            ", ".join(of.weights.variants),
            of.weights.by,
            METRICS[of.metric].label,
            of.protocol,
            with_unit(f"{of.value:.{METRICS[of.metric].decimals}f}", of.metric),
        ]
        for of in comparison.released_beside
    ]
    if not lines:
        return []
    table = markdown_table(lines, ["variant", "weights by", "metric", "protocol", "measured here"])
    return ["Released weights that check no claim, as network or recipe is another, measured here:", table]


def _printed_in(claim: Claim) -> str:
    """The place in the paper, and what a second source says."""
    other = claim.second_reference
    return claim.where + (f"; {other.source}: {with_unit(other.value, claim.metric)}" if other else "")


def _cells(row: Row) -> list[str]:
    verdict = f"**{row.verdict}**" + (f" ({remark(row)})" if remark(row) else "")
    return [
        row.variant,
        label(row),
        row.protocol or "–",
        row.edition or "–",
        reported_as(row),
        measured(row),
        difference(row),
        verdict,
    ]


def _released(row: Row) -> str:
    return f"{released_as(row)}, **{row.released.verdict}**" if row.released else "–"


def _by_whom(of: ReleasedEvidence) -> str:
    """Whose weights they are, and where they come from."""
    return f"Released weights *{of.weights.id}*: by {of.weights.by}, `{of.weights.file}` of {of.weights.dataset}"


def _edition_notes(comparison: Comparison, rows: list[Row]) -> list[str]:
    return [
        f"- *{note.edition}* ({note.dataset}): {': '.join(filter(None, [note.description, note.evidence]))}."
        for note in comparison.edition_notes(rows)
    ]


def _ideas(comparison: Comparison, everything: bool = False) -> list[str]:
    """The table of the paper's ideas; with `everything` it is that of results/README.md, which explains it once."""
    if not comparison.ideas:
        return []
    lines = [_idea_cells(row, "" if everything else "../../results/") for row in comparison.ideas]
    return ["### Ideas", *([] if everything else [ABOUT_IDEAS]), markdown_table(lines, IDEA_COLUMNS)]


def _idea_cells(row: IdeaRow, results: str) -> list[str]:
    """`results` is the way to results/."""
    variants = [f"[{name}]({results}records/{folder})" if folder else name for name, folder in row.variants]
    return [
        f"{row.idea.where}: {row.idea.says}",
        " / ".join(variants),
        measured_on(row),
        reported_difference(row),
        measured_difference(row),
        f"**{row.verdict}**" + (f" ({row.note})" if row.note else ""),
    ]


def _evidence(comparison: Comparison) -> list[str]:
    lines = [
        [
            of.variant,
            of.edition,
            " ".join(f"[{seed_of(r)}](records/{r}.json)" for r in of.records),
            " ".join(of.commits),
            f"`{of.command}`",
        ]
        for of in comparison.evidence
    ]
    columns = ["variant", "edition", "records of seeds", "ran from commit", "command"]
    released = [
        [
            of.weights.id,
            " ".join(f"[{record.data.dataset}](records/{record.name}.json)" for record in of.records),
            " ".join(dict.fromkeys(record.code.short_commit for record in of.records)),
            f"`{of.command}`",
        ]
        for of in comparison.released_evidence
    ]
    released_columns = ["released weights", "records of datasets", "measured from commit", "command"]
    tables = (lines, columns), (released, released_columns)
    return [markdown_table(of, headings) for of, headings in tables if of]


def _not_attempted(comparison: Comparison, everything: bool = False) -> list[str]:
    """The variants that wait for a run, a line each; with `everything` also their claims, a line each, folded away."""
    waiting = comparison.not_attempted
    lines = [
        [
            of.variant,
            f"{len(of.claims)} below" if everything else of.printed,
            of.needs,
            f"`{of.command}`" if of.command else "–",
        ]
        for of in waiting
    ]
    parts = (
        [markdown_table(lines, ["variant", "claims" if everything else "paper says", "needs", "command"])]
        if lines
        else []
    )
    if everything and waiting:
        claims = [[c.variant, *_claimed(c)] for of in waiting for c in of.claims]
        table = markdown_table(claims, ["variant", "metric", "protocol", "paper says", "printed in"])
        parts.append(f"<details><summary>What the paper says</summary>\n\n{table}\n\n</details>")
    if comparison.not_run:
        parts.append(f"Not run yet, and not covered by any claim: {', '.join(comparison.not_run)}.")
    return ["### Not attempted", *parts] if parts else []


def _also_reported(comparison: Comparison) -> list[str]:
    """What the paper prints beside its claims: rankings of methods, and settings that are not variants here."""
    rankings = [[r.of.what, _ranked(r), _where(r.of)] for r in comparison.rankings]
    others = [of for of in comparison.paper.also_reported if not of.claim]
    settings = [
        [of.what, "; ".join(f"{name}: {value}" for name, value in of.values.items()), _where(of)] for of in others
    ]
    if not (rankings or settings):
        return []
    return ["### What else the paper prints", markdown_table([*rankings, *settings], ["what", "values", "printed in"])]


def _over_examples(row: Row, low: float, high: float) -> str:
    """The two sources of chance, each with the other as it is."""
    metric = row.metric or ""

    def between(low: float, high: float) -> str:
        decimals = METRICS[metric].decimals
        return f"{low:.{decimals}f} to {with_unit(f'{high:.{decimals}f}', metric)}"

    text = f"- *{row.variant}*, {label(row)} ({row.protocol}): other test examples would put the mean of these runs at "
    text += f"{between(low, high)} (90 % bootstrap interval)"
    spread = row.summary.spread if row.summary else None
    if not spread:
        return text
    one_more = between(spread.next_low, spread.next_high)
    return f"{text}; another seed would put one more run at {one_more} (95 % prediction interval)"


def _earlier_generations(comparison: Comparison) -> list[str]:
    """What was published before, and what it was measured with."""
    lines = [
        [
            of.variant,
            METRICS[of.metric].label,
            of.protocol,
            of.edition,
            mean_and_spread(of.metric, of.mean, of.sd, of.n),
            " ".join(of.commits),
            ", ".join(of.processors),
            f"{of.same_bits} of {of.n}",
        ]
        for of in earlier_generations(comparison.paper.name)
    ]
    if not lines:
        return []
    about = (
        "These records were replaced when the same seeds were run again by newer sources, or elsewhere. "
        "The records themselves are in the history, at the commits after those named."
    )
    columns = ["variant", "metric", "protocol", "edition", "measured then", "from commit", "on"]
    columns.append("seeds with the same bits in the next generation")
    return ["### Earlier generations", about, markdown_table(lines, columns)]


def _where(of: AlsoReported) -> str:
    return of.where + (f" ({UNVERIFIED})" if of.unverified else "")


def _ranked(ranking: Ranking) -> str:
    """'SSRN 98.45, **this paper 98.39**, 3D-CNN 82.62: rank 2 of 3; the mean here, 98.10 %, would rank 2'"""
    methods = ", ".join(f"{name} {value}" if name else f"**this paper {value}**" for name, value in ranking.methods)
    text = f"{methods}: rank {ranking.place(ranking.claim.value)} of {len(ranking.methods)}"
    if ranking.measured is None:
        return text
    metric = ranking.claim.metric
    mean = with_unit(f"{ranking.measured:.{METRICS[metric].decimals}f}", metric)
    return f"{text}; the mean here, {mean}, would rank {ranking.place(ranking.measured)}"


def _claimed(claim: Claim) -> list[str]:
    remark = f" ({UNVERIFIED})" if claim.unverified else ""
    return [METRICS[claim.metric].label, claim.protocol, reported_as(claim) + remark, _printed_in(claim)]


def _links(paper: Paper) -> list[str]:
    folders = {"Records": paths.RECORDS / paper.name, "Weights": paths.WEIGHTS / paper.name}
    links = [
        f"{what}: [results/{folder.parent.name}](../../{folder.relative_to(paths.ROOT).as_posix()})."
        for what, folder in folders.items()
        if folder.is_dir()
    ]
    return [" ".join(links)] if links else []


def power_table() -> str:
    """How often `reproduced` comes out where nothing differs from the paper, for both kinds of printed number."""

    def chances(n: int, spread: float) -> str:
        fixed, drawn = (100 * v.power(n, spread, printed_is_a_draw) for printed_is_a_draw in (False, True))
        return f"{fixed:.0f} % / {drawn:.0f} %"

    lines = [[f"{n} seeds", *(chances(n, spread) for spread in POWER_SPREADS)] for n in POWER_SEEDS]
    headings = ["", *(f"spread = {spread:g} × margin" for spread in POWER_SPREADS)]
    return (
        "The chance of `reproduced` where nothing differs from the paper, by the number of seeds and their spread. "
        "First for a printed number that is the true mean, as the mean of very many runs would be; then for one that "
        "is a single run itself, as most papers print it.\n\n"
        f"{markdown_table(lines, headings)}\n\n"
        "In the second case the printed number lies within the prediction interval 95 times in 100, and the verdict is "
        "then `reproduced` or `consistent`."
    )


def markdown_table(lines: list[list[str]], headings: list[str]) -> str:
    from tabulate import tabulate

    cells = [[" ".join(cell.replace("|", r"\|").split()) for cell in line] for line in lines]
    return tabulate(cells, headings, tablefmt="pipe", disable_numparse=True)
