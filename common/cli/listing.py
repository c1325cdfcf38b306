"""What there is: papers and datasets. Nothing here imports torch."""

import dataclasses
import json
from collections.abc import Iterable

import click

from common.base.duration import duration
from common.base.errors import DataAbsent, DataError, SomeFailed, UsageError, nearest
from common.base.metrics import METRICS
from common.base.progress import say
from common.base.terminal import print_table
from common.claims import verdict as v
from common.claims.papers import Paper, find_papers, load_paper
from common.claims.rows import Row, label, paper_rows, released_as
from common.data.find import real_data
from common.data.passports import Passport, all_passports, locate, search_folders
from common.publishing.plausible import on_cpu
from common.training.records import FinishedRecord, Record, published_records, published_released

# Words of a row, the best first: what was trained here and judged, then what released weights say, then the rest.
JUDGED = v.WORDS.index(v.TOO_FEW_SEEDS)
BEST_FIRST = (*v.WORDS[:JUDGED], v.CONFIRMED, v.NOT_CONFIRMED, *v.WORDS[JUDGED:])
FOUND = {"absent": "no", "damaged": "bad"}  # in the list of papers; any edition is "yes"


def show_papers(as_json: bool) -> None:
    """Every paper in one line of at most 80 columns: its best row, and of its default variant whether the data is found
    here and how long a full run takes."""
    entries = [_overview(load_paper(name)) for name in find_papers()]
    if as_json:
        click.echo(json.dumps(entries, indent=1))
        return
    lines = [
        [
            e["paper"],
            f"{e['metric']} {e['here']} ({e['reported']})",
            e["verdict"],
            FOUND.get(e["data"], "yes"),
            _short_time(e["minutes"], e["device"], e["estimate"]),
        ]
        for e in entries
    ]
    _print_lines([["paper", "best row: here (paper)", "verdict", "data", "per seed"], *lines])
    if any(e["verdict"] in (v.CONFIRMED, v.NOT_CONFIRMED) for e in entries):
        click.echo(f"\n{v.CONFIRMED}, {v.NOT_CONFIRMED}: by released weights; nothing was trained here.")
    click.echo("\ndata, per seed: of the default variant; the best row may be another's.")
    click.echo(
        "\nRun one:       bash reproduce.sh PAPER\n"
        "Its variants:  bash reproduce.sh list PAPER\n"
        "Its options:   bash reproduce.sh PAPER --help"
    )


def _print_lines(lines: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        click.echo("  ".join(map(str.ljust, line, widths)).rstrip())


def _overview(paper: Paper) -> dict:
    """What the list of papers has of one: its default variant, and the best of its rows that have a printed number."""
    records = published_records(paper.name)
    (default,) = _entries(paper, records, [paper.default_variant])
    rows = [row for row in paper_rows(paper, records, published_released(paper.name)) if row.printed]

    def place(row: Row) -> tuple:
        measured = row.summary or row.released
        others = row.metric not in paper.headline, row.variant != paper.lead_variant
        return not measured, BEST_FIRST.index(_word(row)), *others

    row = min(rows, key=place, default=None)
    here = reported = None
    if row and row.metric and row.printed:
        reported = row.printed.reported
        if row.summary:
            here = f"{row.summary.mean:.{METRICS[row.metric].decimals}f}"
        elif row.released:
            here = released_as(row).partition(" ")[0]
    return default | {
        "metric": label(row) if row else "",
        "here": here or "–",
        "reported": reported or "–",
        "verdict": _word(row) if row else v.NO_PUBLISHED_NUMBER,
    }


def _word(row: Row) -> str:
    """The verdict of a row or, where nothing was trained, what released weights say."""
    return row.released.verdict if row.released and not row.records else row.verdict


def show_variants(paper: Paper, as_json: bool) -> None:
    """The variants of a paper, whether their data is found here, and how long a full run took."""
    entries = _entries(paper, published_records(paper.name), list(paper.variants))
    if as_json:
        click.echo(json.dumps(entries, indent=1))
        return
    lines = [
        [
            e["variant"] + (" (default)" if e["default"] else ""),
            e["description"],
            f"{e['dataset']}: {e['data']}",
            _time(e["minutes"], e["device"], e["estimate"]),
        ]
        for e in entries
    ]
    print_table(f"Variants of {paper.name}", ["variant", "what it is", "data", "a full run takes"], lines)
    click.echo(f"Run one:  bash reproduce.sh {paper.name} --variant NAME")


def _entries(paper: Paper, records: list[Record], variants: list[str]) -> list[dict]:
    """One for each of these variants. The data of each dataset is hashed once."""
    times = {name: _measured_time([record for record in records if record.variant == name]) for name in variants}
    states = {passport.name: _state(passport) for passport in _passports(paper, variants)}
    return [
        {
            "paper": paper.name,
            "variant": name,
            "default": name == paper.default_variant,
            "description": variant.description,
            "dataset": variant.dataset,
            "data": states[variant.dataset],
            "minutes": times[name][0],
            "device": times[name][1],
            "estimate": _estimate(paper, name),
        }
        for name in variants
        for variant in [paper.variants[name]]
    ]


def _measured_time(records: list[Record]) -> tuple[float | None, str | None]:
    """Minutes for a seed, on the mean, and on what: the CPU, as most readers have no more, or else a GPU."""
    finished = [record for record in records if isinstance(record, FinishedRecord)]
    by_cpu = [record for record in finished if on_cpu(record.environment)]
    seconds = [record.times.wall_seconds for record in by_cpu or finished]
    if not seconds:
        return None, None
    return round(sum(seconds) / len(seconds) / 60, 1), "cpu" if by_cpu else "GPU"


def _passports(paper: Paper, variants: Iterable[str]) -> list[Passport]:
    return list({paper.variants[name].dataset: paper.passport(name) for name in variants}.values())


def _estimate(paper: Paper, variant: str) -> dict | None:
    """What a run of a variant needs, in hours and on which device: as its claims say or, without any, the variant."""
    needs = [claim.needs for claim in paper.claims if claim.variant == variant]
    needs += filter(None, [paper.variants[variant].needs])
    return max(needs, key=lambda need: need.hours).model_dump() if needs else None


def _time(minutes: float | None, device: str | None, estimate: dict | None) -> str:
    if minutes is not None:
        return f"{duration(60 * minutes)} per seed{_where(device)}"
    if estimate is None:
        return "not measured"
    return f"about {duration(3600 * estimate['hours'])}{_where(estimate['device'])} (estimate)"


def _where(device: str | None) -> str:
    return "" if device == "cpu" else f" on a {device}"


def _short_time(minutes: float | None, device: str | None, estimate: dict | None) -> str:
    """'3.9 min', '72 s GPU'; an estimate is marked: '~12 min GPU'"""
    if minutes is not None:
        time = duration(60 * minutes)
    elif estimate is not None:
        time, device = f"~{duration(3600 * estimate['hours'])}", estimate["device"]
    else:
        return "–"
    return time if device == "cpu" else f"{time} {device}"


def _state(passport: Passport) -> str:
    search_folders()  # a $REPRO_DATA that is not a folder is reported, not taken for damage
    try:
        return locate(passport).edition
    except DataAbsent:
        return "absent"
    except DataError:
        return "damaged"


def show_passports(as_json: bool) -> None:
    """Every dataset: editions, terms, where it comes from, what is found here."""
    passports = all_passports().values()
    if as_json:
        content = [
            {"dataset": p.name, "title": p.title, "state": _state(p), "terms": p.terms, "page": p.page,
             "editions": {name: e.model_dump() for name, e in p.editions.items()}, "standin": p.standin}
            for p in passports
        ]  # fmt: skip
        click.echo(json.dumps(content, indent=1))
        return
    lines = [[p.name, p.title, _state(p), ", ".join(p.editions), p.terms, p.page] for p in passports]
    print_table("Datasets", ["dataset", "title", "found here", "editions", "terms", "page"], lines)


def fetch_data(name: str, as_json: bool) -> None:
    """Fetch and verify one dataset, or all of a paper's; one that is unavailable does not hold the others back.

    Raises:
        UsageError: neither a paper nor a dataset. DataError: it is unavailable or damaged. SomeFailed: several are.
    """
    found, errors = [], []
    for passport in _passports_of(name):
        try:
            located = real_data(passport)
        except DataError as error:
            errors.append(error)
            continue
        found.append(dataclasses.asdict(located) | {"folder": str(located.folder)})
        if not as_json:
            click.echo(f"{passport.name}: {located.edition}, verified, in {located.folder}")
    if as_json:
        click.echo(json.dumps(found, indent=1))
    if len(errors) > 1:
        for each in errors:
            say(str(each))
        raise SomeFailed(errors[0], f"{len(errors)} of the datasets of {name} are unavailable, see above.")
    if errors:
        raise errors[0]


def _passports_of(name: str) -> list[Passport]:
    if name in find_papers():
        paper = load_paper(name)
        of_released = {dataset for released in paper.released for dataset in (released.dataset, *released.tests)}
        passports = [*_passports(paper, paper.variants), *map(paper.dataset, sorted(of_released))]
        return list({passport.name: passport for passport in passports}.values())
    known = all_passports()
    if name not in known:
        raise UsageError(f"{name!r} is neither a paper nor a dataset.{nearest(name, [*known, *find_papers()])}")
    return [known[name]]
