"""What the tests of GoogLeNet's runs share."""

from collections.abc import Callable

import torch
import torchvision
from torch import nn

from common.data.imagenet import Encoded, ImageNet, Part, load
from common.data.passports import LocatedData
from common.training.determinism import generator
from papers.googlenet import imagenet, model
from papers.googlenet.model import TABLE_1, Columns

TRAIN, TEST = 3, 1  # pictures of each class


def make_narrow(patch: Callable = setattr) -> None:
    """Table 1 with an eighth of its filters, and heads of few units: what is tested does not depend on them."""
    columns = {row: Columns(*(count // 8 for count in vars(of_row).values())) for row, of_row in TABLE_1.items()}
    patch(model, "TABLE_1", columns)
    patch(model, "HEAD_UNITS", 32)


def make_small(patch: Callable = setattr) -> None:
    """A narrow network, and a quarter of the stand-in for ImageNet."""
    make_narrow(patch)
    patch(imagenet, "load", few)


def few(data: LocatedData) -> ImageNet:
    whole = load(data)
    return ImageNet(_first(whole.train, TRAIN), _first(whole.test, TEST), whole.classes)


def _first(part: Part, count: int) -> Part:
    """Of each class."""
    numbers = torch.cat([(part.labels == label).nonzero()[:count, 0] for label in part.labels.unique()]).tolist()
    names, files = ([of[number] for number in numbers] for of in (part.names, part.pictures.files))
    return Part(names, part.labels[numbers], Encoded(files))


def torchvisions(seed: int = 0) -> nn.Module:
    """torchvision's network as after some training: no scale is 1, no mean 0."""
    model = torchvision.models.googlenet(aux_logits=True, init_weights=False)
    draw = generator(seed, "torchvision")
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, (2 / parameter[0].numel()) ** 0.5, generator=draw)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low in ((module.weight, 0.5), (module.bias, -0.2), (module.running_mean, -0.5)):
                tensor.data.uniform_(low, low + 0.7, generator=draw)
            module.running_var.uniform_(0.5, 2, generator=draw)
    return model.eval()
