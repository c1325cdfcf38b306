"""The metrics the project reports: units, directions, and how they are counted."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Metric:
    label: str
    unit: str
    higher_is_better: bool | None  # None where neither direction is better
    decimals: int
    range: tuple[float, float]
    counted_on: str | None = None  # the split whose examples a percentage counts
    by_class: bool = False  # the mean of what is counted class by class
    fixed_tolerance: float | None = None  # the margin where nothing is counted


PERCENT = (0.0, 100.0)
METRICS = {
    "test_error": Metric("test error", "%", False, 2, PERCENT, "test"),
    "train_error": Metric("training error", "%", None, 2, PERCENT, "train"),
    "top1_error": Metric("top-1 error", "%", False, 2, PERCENT, "test"),
    "top5_error": Metric("top-5 error", "%", False, 2, PERCENT, "test"),
    "oa": Metric("overall accuracy", "%", True, 2, PERCENT, "test"),
    "aa": Metric("average accuracy", "%", True, 2, PERCENT, "test", by_class=True),
    "kappa": Metric("kappa", "%", True, 2, (-100.0, 100.0), "test"),
    "seen_windows": Metric("test windows with training pixels", "%", None, 1, PERCENT),
    "gradient_norm": Metric("gradient norm", "", None, 4, (0.0, float("inf"))),
    "psnr": Metric("PSNR", "dB", True, 2, (-float("inf"), float("inf")), fixed_tolerance=0.05),
    "ssim": Metric("SSIM", "", True, 4, (-1.0, 1.0), fixed_tolerance=0.005),
    "map_i2t": Metric("mAP image to text", "", True, 3, (0.0, 1.0), fixed_tolerance=0.02),
    "map_t2i": Metric("mAP text to image", "", True, 3, (0.0, 1.0), fixed_tolerance=0.02),
    "map_avg": Metric("mAP average", "", True, 3, (0.0, 1.0), fixed_tolerance=0.02),
}


def error_percent(predicted: Any, label: Any) -> float:
    """Share of wrong predictions in percent. Both of shape (N,), both NumPy arrays or both tensors."""
    return 100.0 * int((predicted != label).sum()) / len(label)
