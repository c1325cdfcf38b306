"""The noise of the authors' tests, bit for bit: what Matlab's randn draws after randn('seed', 0), which they call
before every picture.

'seed' selects the generator of Matlab 4: uniform numbers by Park and Miller's minimal standard, x <- 7^5 x mod
(2^31 - 1); of these normal ones by Marsaglia and Bray's polar method, which here keeps the first number of each pair
only. Its first values are printed in the manual of that time.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

MULTIPLIER, MODULUS = 7**5, 2**31 - 1
START = 1144108930  # the state that the seed 0 stands for
PAIRS_A_NUMBER = 1.4  # a pair is rejected outside the unit circle: 4 / pi are needed on average


def uniform(count: int) -> np.ndarray:
    """The first `count` uniform numbers, between 0 and 1. Shape (count,), float64."""
    states = np.empty(count, np.uint64)
    states[0] = START * MULTIPLIER % MODULUS
    known, jump = 1, MULTIPLIER  # `jump` goes on by as many numbers as are known
    while known < count:
        more = states[known : 2 * known]
        more[:] = states[: len(more)] * np.uint64(jump) % np.uint64(MODULUS)
        known, jump = 2 * known, jump * jump % MODULUS
    return states / MODULUS


@lru_cache(maxsize=8)  # the pictures of a test set have few shapes
def randn(shape: torch.Size) -> Tensor:
    """
    Args:
        shape: of a picture, (C, H, W). Matlab's is (H, W, C), and it fills the columns of the first channel first.

    Returns:
        N(0, 1), float64, of that shape.
    """
    channels, height, width = shape
    count = channels * height * width
    first, second = 2 * uniform(2 * (int(PAIRS_A_NUMBER * count) + 100)).reshape(-1, 2).T - 1
    radius = first**2 + second**2
    kept = radius < 1
    normal = first[kept] * np.sqrt(-2 * np.log(radius[kept]) / radius[kept])
    return torch.from_numpy(normal[:count].reshape(channels, width, height)).transpose(1, 2)
