"""How long something takes, as every page and table writes it."""

UNITS = (("h", 3600.0), ("min", 60.0), ("s", 1.0))


def duration(seconds: float) -> str:
    """'2.5 h', '24 min', '39 s', '120 ms': to a tenth below ten, in the largest unit that fits at least twice."""
    unit, length = next((of for of in UNITS if seconds >= 2 * of[1]), ("ms", 0.001))
    count = seconds / length
    return f"{count:.1f} {unit}" if round(count, 1) < 10 and unit != "ms" else f"{count:.0f} {unit}"
