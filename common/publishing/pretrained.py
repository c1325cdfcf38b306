"""A paper's network with published or released weights, ready for use from Python."""

from functools import partial

from torch import Tensor, nn

from common.base import paths
from common.base.errors import UsageError
from common.claims.papers import Paper, load_paper
from common.claims.rows import about_rounded
from common.data.find import real_data
from common.publishing.measure import record_weights, recorded_recipe, with_weights
from common.publishing.publish import LARGEST_WEIGHTS
from common.publishing.released import read_released
from common.training.records import FinishedRecord, published_records


def load_pretrained(paper: str, variant: str | None = None) -> nn.Module:
    """A network with its weights and the preprocessing that it needs, in evaluation mode on the CPU.

    The weights are those published here, of the seed nearest the mean; where there are none, those released by others.
    Large ones are published rounded to float16 and come back as float32: `description` then says so, with the sha256 of
    the file and what it measures.
    The network is built from the recipe of their training (`help(model.forward)` says what it takes and gives).

    Args:
        paper: the name of its folder.
        variant: None for the paper's default one.

    Raises:
        UsageError: no such paper or variant, or no weights of it to load.
        DataError: the released file, or the training data that the preprocessing needs, is unavailable or damaged.
        NumbersError: NaN or infinity in the weights.
    """
    loaded = load_paper(paper)
    name = loaded.variant(variant)
    if name not in loadable(loaded):
        raise UsageError(_why_not(loaded, name))
    predictor = getattr(loaded.module("eval"), "predictor", None)
    if predictor is None:
        raise UsageError(f"{paper} is of no use apart from its data: bash reproduce.sh eval {paper}")
    weights, recipe = _weights(loaded, name)
    model: nn.Module = predictor(weights, recipe, partial(real_data, loaded.passport(name)))
    return model.eval()


def description(paper: Paper, variant: str) -> str:
    """What a loadable variant is, and what became of its weights if they are published in float16."""
    rounded = about_rounded(record for record in with_weights(paper).values() if record.variant == variant)
    return " ".join([f"{paper.name} / {variant}: {paper.variants[variant].description}.", *rounded])


def loadable(paper: Paper) -> list[str]:
    """The variants whose weights are published here or were released, in the order of paper.yaml."""
    known = {record.variant for record in with_weights(paper).values()}
    known |= {variant for released in paper.released for variant in released.variants}
    return [variant for variant in paper.variants if variant in known]


def _weights(paper: Paper, variant: str) -> tuple[dict[str, Tensor], object]:
    """The weights of a loadable variant and their recipe."""
    for file, record in with_weights(paper).items():
        if record.variant == variant:
            return record_weights(record, paths.ROOT / file), recorded_recipe(paper, record)
    released = next(released for released in paper.released if variant in released.variants)
    recipe = paper.module("train").recipe(variant, "full")
    return read_released(paper, released, real_data(paper.dataset(released.dataset)), recipe), recipe


def _why_not(paper: Paper, variant: str) -> str:
    records = [record for record in published_records(paper.name) if record.variant == variant]
    if any(isinstance(record, FinishedRecord) for record in records):
        large = f"only files of up to {LARGEST_WEIGHTS / 1e6:g} MB are published"
        of_one = f" and, rounded to float16, the larger one of {paper.weights_of}" if paper.weights_of else ""
        why = "they are not published yet" if variant == paper.weights_of else large + of_one
    else:
        why = "it has not been measured here"
    others = ", ".join(loadable(paper))
    instead = f" Published or released: {others}." if others else ""
    train = f"bash reproduce.sh {paper.name} --variant {variant}"
    return f"There are no weights of {paper.name} / {variant}: {why}.{instead} To train them: {train}"
