"""Whether the terms by which a claim is judged were fixed before it was measured: the git history knows.

The terms of a variant are how many seeds make a verdict, and of each of its claims the metric, the protocol, the
printed number and its margin.
"""

import yaml

from common.base import paths
from common.base.errors import DAMAGED
from common.base.schema import YamlLoader
from common.claims.papers import Paper
from common.claims.verdict import LEAST_SEEDS
from common.publishing.history import in_history, require_history
from common.training.provenance import git
from common.training.records import Record, published_records, published_released

Terms = dict[str, tuple[int, list[tuple]]]  # by variant: seeds and claims
JUDGED_BY = ("metric", "protocol", "reported", "tolerance")


def terms_of(text: str) -> Terms:
    """The terms in a paper.yaml, which may be one of an older form. Anything that is not a paper.yaml has none."""
    try:
        content = yaml.load(text, YamlLoader)
        claims = [(claim["variant"], claim["id"], *map(claim.get, JUDGED_BY)) for claim in content["claims"]]
        seeds = {name: variant.get("seeds", LEAST_SEEDS) for name, variant in content["variants"].items()}
    except (yaml.YAMLError, *DAMAGED):
        return {}
    return {name: (count, sorted(claim[1:] for claim in claims if claim[0] == name)) for name, count in seeds.items()}


def frozen_faults(paper: Paper) -> list[str]:
    """Every variant whose terms changed after they were frozen, or after one of its records was run; and every one
    of whose claims changed after released weights were measured.

    Raises:
        NoHistory: the folder is not under git, or its history does not reach back far enough.
    """
    require_history()
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
    return faults + _changed_after_measuring(paper, now)


def counting_records(paper: Paper) -> list[Record]:
    """The published records that claims are judged by."""
    claimed = {claim.variant for claim in paper.claims}
    records = [record for record in published_records(paper.name) if record.variant in claimed]
    return [record for record in records if paper.passport(record.variant).counts(record.data.edition)]


def _changed(paper: Paper, now: Terms, variants: list[str], commit: str, what: str) -> list[str]:
    """The variants whose terms are not those of a commit."""
    then = _terms_at(paper, commit)
    if then is None:
        return [_unknown(paper, what, commit)]
    return [
        f"{_place(paper)}: {variant}: {what} at {commit[:7]}, and seeds or claims were different then"
        for variant in variants
        if now.get(variant) != then.get(variant)
    ]


def _changed_after_measuring(paper: Paper, now: Terms) -> list[str]:
    """Where a claim that released weights were measured against is not among today's. Later ones may be added: no
    choice of ours goes into a network that others trained."""
    variants = {released.id: released.variants for released in paper.released}
    pairs = {(record.id, record.code.commit) for record in published_released(paper.name) if record.id in variants}
    faults = []
    for weights, commit in sorted((weights, commit) for weights, commit in pairs if commit):
        then, what = _terms_at(paper, commit), f"{weights} was measured"
        if then is None:
            faults.append(_unknown(paper, what, commit))
            continue
        faults += [
            f"{_place(paper)}: {variant}: {what} at {commit[:7]}, and claims were different then"
            for variant in variants[weights]
            if variant in then and not set(then[variant][1]) <= set(now[variant][1])
        ]
    return faults


def _terms_at(paper: Paper, commit: str) -> Terms | None:
    """The terms in the paper's file at a commit; None if the history has no such file there."""
    text = git("show", f"{commit}:{_place(paper)}") if in_history(commit) else None
    return None if text is None else terms_of(text)


def _unknown(paper: Paper, what: str, commit: str) -> str:
    return f"{_place(paper)}: {what} at {commit[:7]}, and the history has no such file there"


def _place(paper: Paper) -> str:
    return paper.file.relative_to(paths.ROOT).as_posix()
