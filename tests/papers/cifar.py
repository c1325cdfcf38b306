"""CIFAR-10, made small for the tests of the papers that train on it."""

import torch

from common.data.cifar10 import CLASSES, Cifar10, load
from common.data.passports import LocatedData

STAND_IN = LocatedData("cifar10", "stand-in", None, {})


def some_of_each_class(count: int) -> Cifar10:
    """The first `count` pictures of each class of the stand-in, for training and for testing."""
    whole = load(STAND_IN)
    train_part, test_part = (
        torch.cat([(labels == number).nonzero()[:count, 0] for number in range(CLASSES)])
        for labels in (whole.train_labels, whole.test_labels)
    )
    return Cifar10(
        whole.train_images[train_part],
        whole.train_labels[train_part],
        whole.test_images[test_part],
        whole.test_labels[test_part],
    )
