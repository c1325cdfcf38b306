"""What a paper claims: reading and checking `papers/<name>/paper.yaml`."""

import importlib
import itertools
import math
import re
from collections.abc import Callable, Collection
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal

import pydantic

from common.base import paths
from common.base.errors import UsageError, nearest
from common.base.metrics import METRICS
from common.base.schema import Checked, Count, read
from common.claims.verdict import LEAST_SEEDS
from common.data.passports import Passport, find_passport

NUMBER = r"-?\d+(\.\d+)?"
MEASURED = r"\{([^{}]*)\}"  # in `why`: what was measured, as {variant/protocol/metric}


class Needs(Checked):
    """What a run takes, by estimate."""

    hours: float
    device: str = "cpu"


class Variant(Checked):
    """One training run: model, dataset, split and protocol."""

    description: str
    dataset: str
    splits: dict[str, Count] | None = None  # examples on each side, where the variant splits the dataset in its own way
    # How many make a verdict, fixed before the first run: otherwise one could stop as soon as the verdict pleases.
    seeds: Annotated[int, pydantic.Field(ge=LEAST_SEEDS)] = LEAST_SEEDS
    needs: Needs | None = None  # where no claim says it


class Spread(Checked):
    """The paper's own spread over its repeated runs."""

    sd: float
    runs: int | None = None


class Reference(Checked):
    """A second published value of the same quantity: torchvision, the authors' code."""

    source: str
    value: str


class Claim(Checked):
    """A number that the paper printed, as it was printed."""

    id: str
    variant: str
    metric: str
    reported: Annotated[str, pydantic.Field(pattern=f"^{NUMBER}$")]
    where: str
    protocol: str
    tolerance: float
    needs: Needs
    spread: Spread | None = None
    second_reference: Reference | None = None
    unverified: bool = False
    remark: str | None = None  # what else the paper says about the number
    detail: bool = False  # appears in results/README.md only, not on the pages that give the overview
    source: str | None = None  # who printed the number, where that is not the paper: then it is a detail

    @property
    def value(self) -> float:
        return float(self.reported)


class Idea(Checked):
    """What a paper claims for a part of it, and the two variants that show whether it holds: one with the part, one
    without it. One of them may be another paper's, written `paper/variant`, where networks and recipes are the same,
    which a test shows."""

    id: str
    says: str
    where: str
    with_variant: Annotated[str, pydantic.Field(alias="with")]
    without_variant: Annotated[str, pydantic.Field(alias="without")]
    metric: str
    protocol: str
    direction: Literal["lower", "higher"] | None = None  # where the metric goes with the part; None: to its better side
    # The difference, with the part minus without it, where the paper prints that and not both numbers as claims.
    reported: Annotated[str, pydantic.Field(pattern=f"^{NUMBER}$")] | None = None
    unverified: bool = False

    @property
    def higher(self) -> bool:
        """Whether the paper says that the metric is higher with the part."""
        return self.direction == "higher" if self.direction else bool(METRICS[self.metric].higher_is_better)


class Released(Checked):
    """Weights that somebody released: they check a claim without training anew. `released.py` in the paper's folder
    has `read(path, recipe)`, which turns the file into the weights that `evaluate` takes."""

    id: str
    by: str  # the authors, or a library
    variants: Annotated[list[str], pydantic.Field(min_length=1)]  # of this network: the first one's recipe is measured
    dataset: str  # whose passport has the file
    file: str
    tests: Annotated[list[str], pydantic.Field(min_length=1)]  # the datasets that they are measured on, each by itself


class AlsoReported(Checked):
    """Numbers that the paper prints beside its claims: of the methods it compares with, which are then ranked with
    the claim, or of settings that are not variants here."""

    what: str
    where: str
    claim: str | None = None
    values: Annotated[dict[str, str], pydantic.Field(min_length=1)]
    unverified: bool = False


class Citation(Checked):
    title: str
    authors: list[str]
    venue: str
    year: int
    doi: str | None = None
    arxiv: str | None = None
    code: Annotated[str, pydantic.Field(pattern="^https://")] | None = None  # the authors' own
    bibtex: str

    @property
    def links(self) -> dict[str, str]:
        """Where the paper and its code are, by what the links are called."""
        links = {
            f"doi:{self.doi}": f"https://doi.org/{self.doi}" if self.doi else None,
            f"arXiv:{self.arxiv}": f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else None,
            "the authors' code": self.code,
        }
        return {name: address for name, address in links.items() if address}


class Protocols(Checked):
    """Evaluation protocols that differ in only a few words, given once. `{word}` in their name and in what they mean
    stands for each of the values that `each` lists for it; with a mapping, for a key in the name and its text in the
    meaning."""

    means: str
    each: dict[str, list[int | str] | dict[str, str]]
    detail: bool = False  # what no claim speaks of appears under them in results/README.md only

    def written_out(self, name: str) -> dict[str, str]:
        """What every one of them means.

        Raises:
            KeyError, IndexError, ValueError: the name or the meaning is not a template over the words in `each`.
        """
        choices = [v.items() if isinstance(v, dict) else zip(v, v, strict=True) for v in self.each.values()]
        meanings = {}
        for chosen in itertools.product(*choices):
            keys, texts = (dict(zip(self.each, part, strict=True)) for part in zip(*chosen, strict=True))
            meanings[name.format(**keys)] = self.means.format(**texts)
        return meanings

    @property
    def once(self) -> str:
        """What they mean, with the words that stand for each, and what their keys stand for."""
        keys = {word: values.items() for word, values in self.each.items() if isinstance(values, dict)}
        listed = [f"{{{word}}}: {', '.join(map(' '.join, items))}" for word, items in keys.items()]
        return "; ".join([self.means, *listed])


class PaperFile(Checked):
    """The content of a paper.yaml."""

    citation: Citation
    # The commit of this file at which seeds, printed numbers and margins were fixed; `verify` compares it with today's.
    frozen: Annotated[str, pydantic.Field(pattern="^[0-9a-f]{40}$")] | None = None
    default_variant: str
    lead_variant: str | None = None  # whose numbers speak for the paper in one line, where not the default's
    headline: list[str]  # the metrics that the front page shows where no claim covers what was measured
    # One sentence: why what was measured differs from what is printed, or what may make it differ. `{variant/protocol/
    # metric}` in it stands for what was measured.
    why: Annotated[str, pydantic.Field(pattern=r"^\S[^\n]*\.$")] | None = None
    variants: dict[str, Variant]
    weights_of: str | None = None  # the variant whose weights are published, in float16, though they are large
    claims: list[Claim]
    ideas: list[Idea] = []
    also_reported: list[AlsoReported] = []
    protocols: dict[str, str | Protocols]  # what each evaluation protocol means
    class_sizes: dict[str, list[Count]] = {}  # by dataset, where a metric is counted class by class
    released: list[Released] = []


class Paper:
    """A folder under papers/: its claims now, its code when asked for."""

    def __init__(self, folder: Path):
        self.name = folder.name
        self.folder = folder
        self.file = folder / "paper.yaml"
        content = read(self.file, PaperFile)
        self.citation = content.citation
        self.frozen = content.frozen
        self.default_variant = content.default_variant
        self.lead_variant = content.lead_variant or content.default_variant
        self.headline = content.headline
        self.why = content.why
        self.variants = content.variants
        self.weights_of = content.weights_of
        self.claims = content.claims
        self.ideas = content.ideas
        self.also_reported = content.also_reported
        self._protocols = content.protocols
        self.protocols = self._written_out()
        self.protocols_in_detail = self._written_out_details()
        self.class_sizes = content.class_sizes
        self.released = content.released
        self._passports: dict[str, Passport] = {}
        self._check()

    def _written_out(self) -> dict[str, str]:
        """What each evaluation protocol means."""
        meanings: dict[str, str] = {}
        for name, meaning in self._protocols.items():
            try:
                found = {name: meaning} if isinstance(meaning, str) else meaning.written_out(name)
            except (KeyError, IndexError, ValueError) as error:
                raise UsageError(f"{self.file}: protocols.{name}: {error} is not among the words of `each`") from None
            for repeated in found.keys() & meanings.keys():
                raise UsageError(f"{self.file}: protocols.{name}: {repeated!r} is named twice")
            meanings |= found
        return meanings

    def _written_out_details(self) -> set[str]:
        groups = {name: of for name, of in self._protocols.items() if isinstance(of, Protocols) and of.detail}
        return {protocol for name, of in groups.items() for protocol in of.written_out(name)}

    def meanings(self, used: Collection[str]) -> dict[str, str]:
        """What the protocols in use mean; those that differ in only a few words are given once."""
        meanings: dict[str, str] = {}
        for name, meaning in self._protocols.items():
            if isinstance(meaning, str):
                meanings |= {name: meaning} if name in used else {}
            elif any(one in used for one in meaning.written_out(name)):
                meanings[name] = meaning.once
        return meanings

    def variant(self, name: str | None) -> str:
        """The variant's name, the default one for None.

        Raises:
            UsageError: no such variant.
        """
        name = name or self.default_variant
        if name not in self.variants:
            known = ", ".join(self.variants)
            raise UsageError(f"{self.name} has no variant {name!r} (it has {known}).{nearest(name, self.variants)}")
        return name

    def passport(self, variant: str) -> Passport:
        """
        Raises:
            UsageError: no such variant.
        """
        return self.dataset(self.variants[self.variant(variant)].dataset)

    def dataset(self, dataset: str) -> Passport:
        """
        Raises:
            UsageError: no passport of that name, or one that is not valid.
        """
        if dataset not in self._passports:  # read once: it may list hundreds of files, and every claim asks
            self._passports[dataset] = find_passport(dataset, self.folder)
        return self._passports[dataset]

    def splits(self, variant: str) -> dict[str, int]:
        """How many examples each side of the variant's split has, as far as that is known."""
        return self.variants[variant].splits or self.passport(variant).splits

    def examples(self, variant: str, metric: str) -> float | None:
        """How many examples a metric counts; None where it counts nothing, or their number is not known.

        A mean over C classes of n_c examples is as coarse as a share of C² / Σ 1/n_c examples is. Each side of a
        split is taken to have its share of every class.
        """
        on, by_class = METRICS[metric].counted_on, METRICS[metric].by_class
        examples = self.splits(variant).get(on) if on else None
        sizes = self.class_sizes.get(self.variants[variant].dataset)
        if examples and by_class and sizes:
            return len(sizes) ** 2 / sum(1 / size for size in sizes) * examples / sum(sizes)
        return examples

    def count(self, variant: str, metric: str) -> float:
        """How much a metric changes with one example. Where nothing is counted, one unit of the last digit that
        the tables print: no difference below it is ever claimed."""
        examples = self.examples(variant, metric)
        return 100 / examples if examples else 10.0 ** -METRICS[metric].decimals

    def module(self, name: str) -> ModuleType:
        """`papers.<paper>.<name>`, imported."""
        return importlib.import_module(f"papers.{self.name}.{name}")

    @cached_property
    def has_figures(self) -> bool:
        return (self.folder / "figures.py").exists()

    def _check(self) -> None:
        def fault(text: str) -> UsageError:
            return UsageError(f"{self.file}: {text}")

        named = ("default_variant", "lead_variant", "weights_of")
        for field, name in [(field, getattr(self, field)) for field in named]:
            if name is not None and name not in self.variants:
                raise fault(f"{field}: {name!r} is not a variant")
        for name in self.headline:
            if name not in METRICS:
                raise fault(f"headline: {name!r} is not a metric.{nearest(name, METRICS)}")
        for place in re.findall(MEASURED, self.why or ""):
            known: tuple[Collection[str], ...] = (self.variants, self.protocols, METRICS)
            words = place.split("/")
            if len(words) != len(known) or any(word not in of for word, of in zip(words, known, strict=True)):
                raise fault(f"why: {{{place}}} is not a {{variant/protocol/metric}} of this paper")
        for name in self.variants:
            try:
                passport = self.passport(name)
            except UsageError as error:
                raise fault(f"variants.{name}.dataset: {error}") from None
            if passport.standin is None:
                raise fault(f"variants.{name}.dataset: {passport.name} has no stand-in")
            sizes = self.class_sizes.get(self.variants[name].dataset)
            splits = self.variants[name].splits
            if sizes and splits and sum(sizes) != sum(splits.values()):
                raise fault(f"variants.{name}.splits: do not add up to the {sum(sizes)} examples of class_sizes")
        ids = [claim.id for claim in self.claims]
        for claim in self.claims:
            where = f"claims.{claim.id}"
            if ids.count(claim.id) > 1:
                raise fault(f"{where}.id: two claims have this id")
            if claim.variant not in self.variants:
                raise fault(f"{where}.variant: {claim.variant!r} is not a variant")
            self._check_measured(where, claim, fault)
            metric = METRICS[claim.metric]
            low, high = metric.range
            if not low <= claim.value <= high:
                raise fault(f"{where}.reported: {claim.reported} is out of range")
            splits = self.splits(claim.variant)
            if metric.counted_on not in (None, *splits):
                raise fault(f"{where}.metric: counts {metric.counted_on!r} examples, but there is no such split")
            if claim.source and not claim.detail:
                raise fault(f"{where}.detail: must be true, for {claim.source} is not the paper")
            examples = self.examples(claim.variant, claim.metric)
            if not (claim.spread or metric.fixed_tolerance or examples):
                raise fault(f"{where}.spread: is missing, and nothing else gives a margin for {metric.label}")
            rule = tolerance_by_rule(claim, examples)
            if not math.isclose(claim.tolerance, rule, rel_tol=1e-9):
                raise fault(f"{where}.tolerance: is {claim.tolerance}, the rule gives {rule}")
        self._check_ideas(fault)
        self._check_released(fault)
        for of in self.also_reported:
            where = f"also_reported.{of.what}"
            if of.claim is not None and of.claim not in ids:
                raise fault(f"{where}.claim: {of.claim!r} is not a claim.{nearest(of.claim, ids)}")
            if of.claim and (wrong := [text for text in of.values.values() if not re.fullmatch(NUMBER, text)]):
                raise fault(f"{where}.values: {wrong[0]!r} is not a number to rank a claim with")

    def _check_measured(self, where: str, of: Claim | Idea, fault: Callable[[str], UsageError]) -> None:
        if of.metric not in METRICS:
            raise fault(f"{where}.metric: {of.metric!r} is not a metric.{nearest(of.metric, METRICS)}")
        if of.protocol not in self.protocols:
            raise fault(f"{where}.protocol: {of.protocol!r} is not among the protocols")

    def _check_ideas(self, fault: Callable[[str], UsageError]) -> None:
        ids = [idea.id for idea in self.ideas]
        for idea in self.ideas:
            where = f"ideas.{idea.id}"
            if ids.count(idea.id) > 1:
                raise fault(f"{where}.id: two ideas have this id")
            datasets = []
            for field, name in (("with", idea.with_variant), ("without", idea.without_variant)):
                try:
                    datasets.append(self._find_variant(name).dataset)
                except UsageError as error:
                    raise fault(f"{where}.{field}: {error}") from None
            if datasets[0] != datasets[1]:
                raise fault(f"{where}.without: is trained on {datasets[1]}, but {idea.with_variant} on {datasets[0]}")
            self._check_measured(where, idea, fault)
            if idea.direction is None and METRICS[idea.metric].higher_is_better is None:
                raise fault(f"{where}.direction: is missing, and {METRICS[idea.metric].label} has no better side")
            if idea.reported and (float(idea.reported) > 0) != idea.higher:
                side = "higher" if idea.higher else "lower"
                raise fault(
                    f"{where}.reported: {idea.reported} does not say that {METRICS[idea.metric].label} is {side}"
                )

    def _find_variant(self, name: str) -> Variant:
        """This paper's variant of that name, or with `paper/` before it another paper's.

        Raises:
            UsageError: no such paper or variant, or a paper.yaml that is not valid.
        """
        paper, _, variant = name.rpartition("/")
        variants = self.variants
        if paper:
            variants = read(_folder(paper) / "paper.yaml", PaperFile).variants
        if variant not in variants:
            raise UsageError(f"{name!r} is not a variant.{nearest(variant, variants)}")
        return variants[variant]

    def _check_released(self, fault: Callable[[str], UsageError]) -> None:
        ids = [released.id for released in self.released]
        for released in self.released:
            where = f"released.{released.id}"
            if ids.count(released.id) > 1:
                raise fault(f"{where}.id: two entries have this id")
            for variant in released.variants:
                if variant not in self.variants:
                    raise fault(f"{where}.variants: {variant!r} is not a variant")
            try:
                for dataset in (released.dataset, *released.tests):
                    self.dataset(dataset)
            except UsageError as error:
                raise fault(f"{where}: {error}") from None
            if released.file not in self.dataset(released.dataset).known_files:
                raise fault(f"{where}.file: the passport of {released.dataset} has no {released.file!r}")


def tolerance_by_rule(claim: Claim, examples: float | None) -> float:
    """The equivalence margin of a claim, by the one rule for all papers.

    Args:
        examples: how many the metric counts, as `Paper.examples` gives them.

    Two standard deviations where the paper gives its spread; else 1.96 binomial
    standard errors of the reported value on the examples it was counted on; else
    the metric's fixed margin. Two significant digits, and never less than one
    unit of the last printed digit.
    """
    metric = METRICS[claim.metric]
    if claim.spread:
        margin = 2 * claim.spread.sd
    elif metric.fixed_tolerance:
        margin = metric.fixed_tolerance
    else:
        assert examples is not None, f"{claim.metric} counts nothing and has no fixed margin"
        share = min(max(claim.value / 100, 0), 1)  # a kappa can be less than 0
        margin = 1.96 * 100 * math.sqrt(share * (1 - share) / examples)
    last_digit = 10.0 ** -len(claim.reported.partition(".")[2])
    return max(float(f"{margin:.2g}"), last_digit)


def find_papers() -> list[str]:
    """The names of all papers, sorted."""
    return sorted(file.parent.name for file in paths.PAPERS.glob("*/paper.yaml"))


def load_paper(name: str) -> Paper:
    """
    Raises:
        UsageError: no such paper, or its paper.yaml is not valid.
    """
    return Paper(_folder(name))


def _folder(paper: str) -> Path:
    """
    Raises:
        UsageError: no such paper.
    """
    if paper not in (names := find_papers()):
        raise UsageError(f"No paper is called {paper!r}.{nearest(paper, names)} `bash reproduce.sh` lists them.")
    return paths.PAPERS / paper
