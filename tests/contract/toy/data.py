"""Points in the plane, each from one of two clouds."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from common.data.passports import LocatedData

STANDIN = "2,1,1\n-1,-2,0\n1,3,1\n-2,-2,0\n" * 25


class Clouds(NamedTuple):
    """Points (N, 2) and the cloud, 0 or 1, of each (N,). The second half of the file is the test set."""

    train_points: Tensor
    train_labels: Tensor
    test_points: Tensor
    test_labels: Tensor


def load(located: LocatedData) -> Clouds:
    text = (located.folder / "clouds.csv").read_text() if located.folder else STANDIN
    table = torch.from_numpy(np.array([line.split(",") for line in text.split()], dtype=np.float32))
    half = len(table) // 2
    points, labels = table[:, :2], table[:, 2].long()
    return Clouds(points[:half], labels[:half], points[half:], labels[half:])
