"""A paper's rows, sorted for the pages that show them."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from common.base.metrics import METRICS
from common.claims import verdict as v
from common.claims.generations import processor
from common.claims.ideas import IdeaRow, idea_rows
from common.claims.papers import AlsoReported, Claim, Paper, Released, find_papers, load_paper
from common.claims.rows import UNVERIFIED, Row, about_rounded, can_be_settled, needs, paper_rows, with_unit
from common.data.passports import Passport
from common.training.provenance import Environment
from common.training.records import Record, ReleasedRecord, published_records, published_released


@dataclass(frozen=True)
class NotAttempted:
    """The claims of one variant that have no record."""

    variant: str
    claims: list[Claim]
    needs: str
    command: str | None  # None where no known data would settle them

    @property
    def printed(self) -> str:
        """What the paper says, in one line: 'last: overall accuracy 99.47 %, kappa 99.40 %; best: ...'"""
        by_protocol: dict[str, list[str]] = {}
        for claim in self.claims:
            remark = f" ({UNVERIFIED})" if claim.unverified else ""
            text = f"{METRICS[claim.metric].label} {with_unit(claim.reported, claim.metric)}{remark}"
            by_protocol.setdefault(claim.protocol, []).append(text)
        return "; ".join(f"{protocol}: {', '.join(texts)}" for protocol, texts in by_protocol.items())


@dataclass(frozen=True)
class Evidence:
    """What the rows of one variant and edition rest on."""

    variant: str
    edition: str
    records: list[str]  # their paths below results/records, without the ending
    commits: list[str]  # that they ran from
    environments: list[str]  # that they ran in
    command: str


@dataclass(frozen=True)
class ReleasedEvidence:
    """What was measured with the weights of one file that somebody released."""

    weights: Released
    records: list[ReleasedRecord]
    command: str


@dataclass(frozen=True)
class ReleasedNumber:
    """One number that released weights measure."""

    weights: Released
    record: ReleasedRecord
    protocol: str
    metric: str
    value: float


@dataclass(frozen=True)
class EditionNote:
    """An edition that is not the passport's first: what it is, in the words of the passport, whether it counts for the
    paper's claims, and why it does."""

    edition: str
    dataset: str
    description: str
    evidence: str


@dataclass(frozen=True)
class Ranking:
    """A claim among the methods that the paper compares its own with."""

    of: AlsoReported
    claim: Claim
    measured: float | None  # the mean of what was measured of the claim

    def place(self, value: float) -> int:
        """The place of this value among the other methods, from 1; ties share the better one."""
        return 1 + sum(self._better(float(other), value) for other in self.of.values.values())

    @property
    def methods(self) -> list[tuple[str | None, str]]:
        """Name and printed value, the best first; the paper's own method has no name."""
        methods = [(None, self.claim.reported), *self.of.values.items()]
        return sorted(methods, key=lambda of: float(of[1]), reverse=bool(METRICS[self.claim.metric].higher_is_better))

    def _better(self, one: float, other: float) -> bool:
        return one > other if METRICS[self.claim.metric].higher_is_better else one < other


@dataclass(frozen=True)
class Comparison:
    """One paper's rows and those of its ideas, in their order, and the records that they rest on."""

    paper: Paper
    rows: list[Row]
    records: list[Record]
    released: list[ReleasedRecord] = field(default_factory=list)
    ideas: list[IdeaRow] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The heading of the paper's page or, where it has none, the name of its folder."""
        page = self.paper.folder / "README.md"
        first = page.read_text(encoding="utf-8").partition("\n")[0] if page.exists() else ""
        return first.removeprefix("# ") if first.startswith("# ") else self.paper.name

    @property
    def attempted(self) -> list[Row]:
        """The rows with records, those of failed seeds and of released weights too."""
        return [row for row in self.rows if row.records or row.released]

    @property
    def not_attempted(self) -> list[NotAttempted]:
        by_variant: dict[str, list[Claim]] = {}
        for row in self.rows:
            if row.claim and not row.records:
                by_variant.setdefault(row.variant, []).append(row.claim)
        return [
            NotAttempted(
                variant,
                open_claims,
                needs(self.paper, open_claims),
                self._command(variant) if can_be_settled(self.paper, variant) else None,
            )
            for variant, open_claims in by_variant.items()
        ]

    @property
    def not_run(self) -> list[str]:
        """The variants that have neither a claim nor a record, of released weights too; nor another paper's record, as
        an idea takes the variant of the same name from there."""
        claimed = {claim.variant for claim in self.paper.claims}  # details too
        released = {name for of in self.released_evidence for name in of.weights.variants}
        elsewhere = {
            name.partition("/")[2] for of in self.paper.ideas for name in (of.with_variant, of.without_variant)
        }
        named = claimed | released | elsewhere | {record.variant for record in self.records}
        return [variant for variant in self.paper.variants if variant not in named]

    @property
    def evidence(self) -> list[Evidence]:
        groups = dict.fromkeys((row.variant, row.edition, tuple(row.records)) for row in self.rows if row.edition)
        by_name = {record.name: record for record in self.records}
        return [
            Evidence(
                variant,
                edition,
                list(records),
                list(dict.fromkeys(by_name[name].code.short_commit for name in records)),
                list(dict.fromkeys(described(by_name[name].environment) for name in records)),
                self._command(variant, ",".join(map(seed_of, records))),
            )
            for variant, edition, records in groups
        ]

    @property
    def released_evidence(self) -> list[ReleasedEvidence]:
        """Of all released weights that were measured."""
        found = []
        for weights in self.paper.released:
            if records := [record for record in self.released if record.id == weights.id]:
                command = f"bash reproduce.sh eval {self.paper.name} --released --variant {weights.variants[0]}"
                found.append(ReleasedEvidence(weights, records, command))
        return found

    @property
    def released_beside(self) -> list[ReleasedNumber]:
        """What released weights measure that check no claim, as their network or their recipe is another."""
        claimed = {claim.variant for claim in self.paper.claims}
        return [
            ReleasedNumber(of.weights, record, protocol, metric, value)
            for of in self.released_evidence
            if not claimed & set(of.weights.variants)
            for record in of.records
            for protocol, values in record.metrics.items()
            for metric, value in values.items()
        ]

    @property
    def rounded(self) -> list[str]:
        """A sentence or two for each published file whose weights are rounded to float16."""
        return about_rounded(self.records)

    def _command(self, variant: str, seeds: str | None = None) -> str:
        seeds = seeds or ",".join(map(str, range(self.paper.variants[variant].seeds)))
        return f"bash reproduce.sh {self.paper.name} --variant {variant} --seeds {seeds}"

    def without_details(self) -> "Comparison":
        """Without the claims that are details, and what was measured under protocols that are, or whose claims all
        are."""
        claims = self.paper.claims
        protocols = {c.protocol for c in claims if c.detail} - {c.protocol for c in claims if not c.detail}
        protocols |= self.paper.protocols_in_detail
        shown = [row for row in self.rows if not (row.claim.detail if row.claim else row.protocol in protocols)]
        return dataclasses.replace(self, rows=shown)

    @property
    def front_rows(self) -> list[Row]:
        """What matters most: the claims that were tried, and what failed."""
        return [row for row in self.without_details().attempted if row.claim or row.verdict == v.FAILED]

    @property
    def by_released(self) -> list[list[Row]]:
        """What released weights were measured on: for each number the rows of all variants that have it."""
        found: dict[tuple, list[Row]] = {}
        for row in self.front_rows:
            if row.released:
                found.setdefault((row.released.record, row.protocol, row.metric), []).append(row)
        return list(found.values())

    @property
    def lead(self) -> list[Row]:
        """What speaks for the paper in one line: the printed numbers that one variant has, of the headline where there
        are some, and what was measured of them. The lead variant, unless only others were measured."""
        printed = [row for row in self.without_details().rows if row.printed]
        told = [row for row in printed if row.metric in self.paper.headline] or printed

        def place(variant: str) -> tuple[bool, ...]:
            rows = [row for row in told if row.variant == variant]
            settled, seen = any(row.claim and row.records for row in rows), any(row.summary for row in rows)
            return not settled, not seen, variant != self.paper.lead_variant

        variant = min((row.variant for row in told), key=place, default=None)
        return [row for row in told if row.variant == variant]

    @property
    def anchors(self) -> list[str]:
        """A name for each row that lasts: that of its claim, or else what was measured. The claim's first edition
        has the name alone, so that it stays the same once the claim is measured."""
        parts = [
            [row.claim.id] if row.claim else [row.variant, row.protocol, row.metric, row.edition] for row in self.rows
        ]
        names = [".".join([self.paper.name, *filter(None, of)]) for of in parts]
        return _unique(list(zip(names, (row.edition for row in self.rows), strict=True)))

    @property
    def ideas_standing(self) -> dict[str, int]:
        """How many ideas have each verdict, in the order of paper.yaml."""
        return dict(Counter(row.verdict for row in self.ideas))

    @property
    def idea_anchors(self) -> list[str]:
        """A name for each row of the ideas that lasts, as `anchors` are."""
        return _unique([(f"{self.paper.name}.{row.idea.id}", row.edition) for row in self.ideas])

    @property
    def standing(self) -> dict[str, int]:
        """How many claims have each verdict, the best first; details do not count.

        The numbers of one evaluation (of one variant, under one protocol, on one split), such as overall accuracy,
        average accuracy and kappa, are one claim, which has the worst of their verdicts.
        """
        return self._count([(claim, row.verdict) for row, claim in self.claimed], v.WORDS)

    @property
    def released_standing(self) -> dict[str, int]:
        """How many printed numbers released weights confirm, and how many they do not. A number that several variants
        have, as it is not known by which recipe the weights were trained, is one."""
        words = Counter(rows[0].released.verdict for rows in self.by_released if rows[0].released)
        return {word: words[word] for word in (v.CONFIRMED, v.NOT_CONFIRMED) if words[word]}

    @property
    def trained(self) -> int:
        """How many of these claims were measured by training here."""
        return len({_evaluation(claim) for row, claim in self.claimed if row.records})

    @property
    def tried(self) -> int:
        """How many of these claims have been measured, by training here or by released weights."""
        return len({_evaluation(claim) for row, claim in self.claimed if row.records or row.released})

    def _count(self, words: list[tuple[Claim, str]], order: Sequence[str]) -> dict[str, int]:
        """How many claims have each word; `order` has the best first."""
        evaluations: dict[tuple, list[str]] = {}
        for claim, word in words:
            evaluations.setdefault(_evaluation(claim), []).append(word)
        worst = [max(of_one, key=order.index) for of_one in evaluations.values()]
        return {word: worst.count(word) for word in order if word in worst}

    @property
    def claimed(self) -> list[tuple[Row, Claim]]:
        """The printed numbers and the rows that settle them, except details."""
        return [(row, row.claim) for row in self.without_details().rows if row.claim]

    @property
    def rankings(self) -> list[Ranking]:
        """Where the paper places its claims among other methods, and where the measured means would come."""
        claims = {claim.id: claim for claim in self.paper.claims}
        means = {row.claim.id: row.summary.mean for row in self.rows if row.claim and row.summary}
        return [Ranking(of, claims[of.claim], means.get(of.claim)) for of in self.paper.also_reported if of.claim]

    @property
    def beside(self) -> list[list[Row]]:
        """What was measured on variants and editions that no claim covers: for each, and each metric
        of the headline, its rows, one a protocol."""
        rows = self.without_details().attempted
        claimed = {(row.variant, row.edition) for row in rows if row.claim}
        beside: dict[tuple, list[Row]] = {}
        for row in rows:
            if (row.variant, row.edition) not in claimed and row.metric in self.paper.headline:
                beside.setdefault((row.variant, row.edition, row.metric), []).append(row)
        return list(beside.values())

    def edition_notes(self, rows: list[Row]) -> list[EditionNote]:
        """One for each edition among the rows that is not the first of its passport."""
        notes = {}
        for row in rows:
            passport = self.paper.passport(row.variant)
            if row.edition and row.edition != next(iter(passport.editions)):
                notes[row.dataset, row.edition] = _edition_note(passport, row.edition, row.dataset)
        return list(notes.values())


def _edition_note(passport: Passport, name: str, dataset: str) -> EditionNote:
    edition, counts = passport.editions.get(name), passport.counts(name)
    what = edition.description if edition else "not an edition of the passport"
    evidence = edition.evidence if edition and counts else None
    standing = f"It {'counts' if counts else 'does not count'} for the paper's claims"
    return EditionNote(name, dataset, f"{_bare(what)}. {standing}", _bare(evidence or ""))


def _bare(sentence: str) -> str:
    return sentence.strip().rstrip(".")


def all_comparisons() -> list[Comparison]:
    """Every paper's: first those with claims that were tried by training, then those with claims tried by released
    weights, then those with anything measured; each by name."""

    def place(of: Comparison) -> tuple[bool, ...]:
        return not any(row.records for row in of.front_rows), not of.front_rows, not of.attempted

    records = published_records()
    return sorted((_comparison(load_paper(name), records) for name in find_papers()), key=place)


def _comparison(paper: Paper, records: list[Record]) -> Comparison:
    """Of all records, among which are those of other papers that ideas name."""
    own, released = [record for record in records if record.paper == paper.name], published_released(paper.name)
    return Comparison(paper, paper_rows(paper, own, released), own, released, idea_rows(paper, records))


def seed_of(record: str) -> str:
    return record.rsplit("seed-", 1)[1]


def _unique(names: list[tuple[str, str | None]]) -> list[str]:
    """The names, with their editions from the second time on."""
    told: list[str] = []
    for name, edition in names:
        told.append(f"{name}.{edition}" if name in told else name)
    return told


def _evaluation(claim: Claim) -> tuple[str, str, str | None]:
    """What the numbers that are one claim have in common."""
    return claim.variant, claim.protocol, METRICS[claim.metric].counted_on


def described(of: Environment) -> str:
    """'Intel Xeon (AVX512), PyTorch 2.15.0, 2 threads, float32'"""
    device = of.device if of.device != of.processor else None
    threads = f"{of.threads} thread{'s' if of.threads > 1 else ''}"
    compiled = of.compiled and f"compiled: {of.compiled}"
    return ", ".join(filter(None, [device, processor(of), f"PyTorch {of.torch}", threads, of.precision, compiled]))
