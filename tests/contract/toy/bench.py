"""The line's steps, all at once and one by one."""

import torch
from papers.toy.model import Line

from common.publishing.bench import Job

POINTS = 1000


def jobs() -> list[Job]:
    line, points = Line(), torch.ones(POINTS, 2)

    def ours() -> int:
        line(points)
        return POINTS

    def straightforward() -> int:
        for point in points[:10]:
            line(point)
        return 10

    return [Job("classification", ours, straightforward, 8.0, 1, "a million points", 1_000_000)]
