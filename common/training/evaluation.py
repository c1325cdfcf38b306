"""What a paper's eval.py hands back."""

from dataclasses import dataclass, field

from common.training.records import Metrics


@dataclass
class Measured:
    """Metrics by protocol, and details for the record (a confusion matrix, say) as plain lists."""

    metrics: Metrics
    details: dict[str, list] = field(default_factory=dict)
