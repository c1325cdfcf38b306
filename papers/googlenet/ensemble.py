"""Join the weights of networks that were trained on ImageNet by runs of their own, for Table 3's ensemble.

    python -m papers.googlenet.ensemble JOINED FILE ...
    bash reproduce.sh eval googlenet --variant imagenet-ensemble --weights JOINED

The variant `imagenet-ensemble` trains all its networks in one run, from the same initial weights, as the paper did.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from common.base.errors import UsageError, UserError
from common.training.recipes import plain
from common.training.weights import load_weights, save_weights, trained_as
from papers.googlenet.imagenet import MEAN, VARIANTS, numbered

ENSEMBLE = "imagenet-ensemble"


def join(joined: Path, files: list[Path]) -> None:
    """
    Raises:
        UsageError: a file is not of the variant `imagenet`, or was trained with another mean colour than the first.
    """
    networks, means = [], []
    for file in files:
        if trained_as(file) != ("googlenet", "imagenet"):
            raise UsageError(f"{file} does not say that it is of googlenet / imagenet.")
        weights = load_weights(file)
        means.append(weights.pop(MEAN))
        if not torch.equal(means[0], means[-1]):
            raise UsageError(f"{file} was trained with another mean colour than {files[0]}.")
        networks.append({name.removeprefix("0."): tensor for name, tensor in weights.items()})
    recipe = replace(VARIANTS[ENSEMBLE], networks=len(files))
    save_weights({**numbered(networks), MEAN: means[0]}, joined, f"googlenet/{ENSEMBLE}/joined", plain(recipe))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    try:
        join(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
    except UserError as error:
        sys.exit(str(error))
