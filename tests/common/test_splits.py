"""The hash of a split: what it notices and what it does not."""

import numpy as np
import pytest
import torch

from common.data.splits import split_hash

TRAIN, TEST = [3, 1, 2], [5, 4]
SAME = split_hash(train=TRAIN, test=TEST)


@pytest.mark.parametrize(
    "changed",
    [
        {"train": [1, 3, 2], "test": TEST},
        {"train": [3, 1], "test": [2, 5, 4]},
        {"train": TEST, "test": TRAIN},
        {"train": TRAIN, "validation": TEST},
        {"train": TRAIN},
        {"train": TRAIN, "test": TEST, "validation": []},
        {"train": ["3", "1", "2"], "test": TEST},
    ],
)
def test_another_split_has_another_hash(changed):
    assert split_hash(**changed) != SAME


@pytest.mark.parametrize("kind", [np.int32, np.uint8, np.dtype(">i8")])
def test_the_type_of_the_numbers_does_not_matter(kind):
    assert split_hash(train=np.array(TRAIN, kind), test=torch.tensor(TEST)) == SAME


def test_the_order_in_which_parts_are_given_does_not_matter():
    assert split_hash(test=TEST, train=TRAIN) == SAME


def test_names_are_told_apart_where_they_begin_and_end():
    assert split_hash(train=["a.png", "b.png"]) != split_hash(train=["a.pngb.png"])
