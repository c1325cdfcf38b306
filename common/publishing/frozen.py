"""Whether the terms by which a claim is judged were fixed before it was measured: the git history knows.

The terms of a variant are how many seeds make a verdict, and of each of its claims the metric, the protocol, the
printed number and its margin.
"""

import yaml

from common.base import paths
from common.base.schema import YamlLoader
from common.claims.papers import Paper
from common.claims.verdict import LEAST_SEEDS
from common.training.provenance import git
from common.training.records import Record, published_records

Terms = dict[str, tuple]  # by variant
JUDGED_BY = ("metric", "protocol", "reported", "tolerance")


class NoHistory(Exception):
    """There is no history to ask."""


def terms_of(text: str) -> Terms:
    """The terms in a paper.yaml, which may be one of an older form. Anything that is not a paper.yaml has none."""
    try:
        content = yaml.load(text, YamlLoader)
        claims = [(claim["variant"], claim["id"], *map(claim.get, JUDGED_BY)) for claim in content["claims"]]
        seeds = {name: variant.get("seeds", LEAST_SEEDS) for name, variant in content["variants"].items()}
    except (yaml.YAMLError, TypeError, KeyError, AttributeError):
        return {}
    return {name: (count, sorted(claim[1:] for claim in claims if claim[0] == name)) for name, count in seeds.items()}


def frozen_faults(paper: Paper) -> list[str]:
    """Every variant whose terms changed after they were frozen, or after one of its records was run.

    Raises:
        NoHistory: the folder is not under git.
    """
    if git("rev-parse", "--show-toplevel") != str(paths.ROOT.resolve()):
        raise NoHistory("no git history here that shows when the claims were fixed")
    now = terms_of(paper.file.read_text(encoding="utf-8"))
    claimed = [variant for variant in paper.variants if any(claim.variant == variant for claim in paper.claims)]
    faults = _changed(paper, now, claimed, paper.frozen, "frozen") if paper.frozen else []
    ran: dict[tuple[str, str], list[Record]] = {}
    for record in counting_records(paper):
        if record.code.commit:  # where there is none, `paper_faults` says so
            ran.setdefault((record.variant, record.code.commit), []).append(record)
    for (variant, commit), records in ran.items():
        seeds = ", ".join(str(record.seed) for record in records)
        faults += _changed(paper, now, [variant], commit, f"seed {seeds} ran")
    return faults


def counting_records(paper: Paper) -> list[Record]:
    """The published records that claims are judged by."""
    claimed = {claim.variant for claim in paper.claims}
    records = [record for record in published_records(paper.name) if record.variant in claimed]
    return [record for record in records if paper.passport(record.variant).counts(record.data.edition)]


def _changed(paper: Paper, now: Terms, variants: list[str], commit: str, what: str) -> list[str]:
    """The variants whose terms are not those of a commit."""
    file = paper.file.relative_to(paths.ROOT).as_posix()
    text = git("show", f"{commit}:{file}")
    if text is None:
        if git("rev-parse", "--is-shallow-repository") == "true":
            raise NoHistory(f"the history here does not reach back to {commit[:7]}")
        return [f"{file}: {what} at {commit[:7]}, and the history has no such file there"]
    then = terms_of(text)
    return [
        f"{file}: {variant}: {what} at {commit[:7]}, and seeds or claims were different then"
        for variant in variants
        if now.get(variant) != then.get(variant)
    ]
