"""Which examples train and which are measured, as one hash for the record."""

import hashlib
import json
from collections.abc import Sequence

import numpy as np
from torch import Tensor


def split_hash(**parts: np.ndarray | Tensor | Sequence[str]) -> str:
    """sha256 over the parts of a split, each with its name and its examples in order.

    An example is a whole number (its index, or its label where files are read from beginning to end) or a
    name. The type that numbers are stored as and the order in which the parts are given do not matter.
    """
    content = {part: np.asarray(examples).tolist() for part, examples in parts.items()}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
