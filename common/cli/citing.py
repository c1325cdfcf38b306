"""`cite`: BibTeX of a paper, of this reproduction, and of what was measured of one claim."""

from datetime import date

import pydantic

from common.base import paths
from common.base.errors import UsageError, nearest
from common.base.metrics import METRICS
from common.base.schema import read
from common.claims.papers import Claim, Paper
from common.claims.rows import Row, about_rounded, measured, paper_rows, released_as, reported_as
from common.data.passports import file_sha256, folder_digest
from common.training.records import published_records, published_released

IN_LATEX = str.maketrans({c: f"\\{c}" for c in "%&#_$"} | {"±": r"$\pm$", "−": "$-$", "–": "--"})


class About(pydantic.BaseModel):
    """What an entry needs of CITATION.cff."""

    title: str
    version: str
    authors: list[dict[str, str]]
    released: date = pydantic.Field(alias="date-released")


def bibtex(paper: Paper, claim: str | None = None) -> list[str]:
    """The paper's entry, this reproduction's and, for a claim, one for each of its rows: the value, how many seeds, the
    commits, and the hash of the records.

    Raises:
        UsageError: no such claim, nothing was measured of it, or CITATION.cff is missing or damaged.
    """
    about = read(paths.ROOT / "CITATION.cff", About)
    rounded = about_rounded(published_records(paper.name))
    ours = _entry(
        about,
        "software",
        paper.name,
        title=f"{about.title}: {paper.citation.title}",
        version=about.version,
        note="; ".join([f"papers/{paper.name}, records in results/records/{paper.name}", *rounded]),
    )
    return [paper.citation.bibtex.strip(), ours, *(_of_claim(about, paper, claim) if claim else [])]


def _entry(about: About, kind: str, name: str, **fields: str) -> str:
    """By the authors that CITATION.cff names, of the year that it has."""
    people = [f"{{{a['name']}}}" if "name" in a else f"{a['family-names']}, {a['given-names']}" for a in about.authors]
    texts = {"author": " and ".join(people), "year": str(about.released.year)}
    texts |= {field: text.translate(IN_LATEX) for field, text in fields.items()}
    width = max(map(len, texts))
    lines = [f"  {field:{width}} = {{{text}}}" for field, text in texts.items()]
    return f"@{kind}{{reproduction-{name.replace('_', '-')},\n" + ",\n".join(lines) + "\n}"


def _of_claim(about: About, paper: Paper, name: str) -> list[str]:
    ids = [claim.id for claim in paper.claims]
    if name not in ids:
        raise UsageError(f"{paper.name} has no claim {name!r}.{nearest(name, ids)} results/comparison.csv has them.")
    rows = paper_rows(paper, published_records(paper.name), published_released(paper.name))
    entries = [_of_row(about, paper, row, row.claim) for row in rows if row.claim and row.claim.id == name]
    if found := [entry for entry in entries if entry]:
        return found
    raise UsageError(f"Nothing has been measured of {name}: there is no number of ours to cite.")


def _of_row(about: About, paper: Paper, row: Row, claim: Claim) -> str | None:
    """Of the seeds that were trained here or, where there are none, of the released weights that were measured."""
    if row.summary:
        value, verdict, names = measured(row), row.verdict, row.records
    elif row.released:
        value, verdict, names = f"released weights: {released_as(row)}", row.released.verdict, [row.released.record]
    else:
        return None
    subject = ", ".join(filter(None, [claim.variant, claim.protocol, row.edition]))
    return _entry(
        about,
        "misc",
        "-".join(filter(None, [paper.name, claim.id, row.edition])),
        title=f"{METRICS[claim.metric].label} of {paper.citation.title} ({subject})",
        note=f"{value}; the paper ({claim.where}): {reported_as(claim)}; {verdict}",
        howpublished=_evidence(paper, names),
    )


def _evidence(paper: Paper, names: list[str]) -> str:
    """Commits and folder of records, and the hash that the given command prints there."""
    known = {record.name: record for record in [*published_records(paper.name), *published_released(paper.name)]}
    commits = dict.fromkeys(str(known[name].code.commit) for name in names)
    files = [known[name].path() for name in names]
    digest = folder_digest({file.name: file_sha256(file) for file in files})
    folder = files[0].parent.relative_to(paths.ROOT)
    which = "seed-*.json" if len(files) > 1 else files[0].name  # a row has all the seeds that there are
    return f"commit {', '.join(commits)}; {folder}: `sha256sum {which} | sha256sum` gives {digest}"
