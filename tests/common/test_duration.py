"""Durations read as people say them."""

import pytest

from common.base.duration import duration

SAID = [
    (0.12, "120 ms"), (1.99, "1990 ms"), (2, "2.0 s"), (39, "39 s"), (119, "119 s"), (120, "2.0 min"), (234, "3.9 min"),
    (599, "10 min"), (1440, "24 min"), (7199, "120 min"), (7200, "2.0 h"), (9000, "2.5 h"), (72_000, "20 h"),
]  # fmt: skip


@pytest.mark.parametrize(("seconds", "said"), SAID)
def test_a_duration_is_said_in_the_unit_that_fits(seconds, said):
    assert duration(seconds) == said
