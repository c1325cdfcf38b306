"""What the network predicts for pixels, and how often it is right."""

import numpy as np
import torch

from papers.hybridsn.data import Windows
from papers.hybridsn.model import HybridSN

AT_ONCE = 64  # windows


@torch.no_grad()
def predict(model: HybridSN, windows: Windows, pixels: np.ndarray, device: str) -> np.ndarray:
    """The class, from 1, of each pixel (N,), in float32 and without dropout. Shape (N,)."""
    model.eval()
    parts = torch.from_numpy(pixels).to(device).split(AT_ONCE)
    predicted = [model(windows.around(part)).argmax(dim=1).cpu() for part in parts]
    return torch.cat(predicted).numpy() + 1


def accuracies(predicted: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """The paper's three measures, in percent, over the classes that `label` has. Both of shape (N,).

    OA: the share that is right. AA: the mean over the classes of the share of each that is right.
    Kappa: how far the agreement exceeds that of chance.
    """
    from sklearn import metrics

    present = np.unique(label)
    return {
        "oa": 100 * float(metrics.accuracy_score(label, predicted)),
        "aa": 100 * float(metrics.recall_score(label, predicted, labels=present, average="macro")),
        "kappa": 100 * float(metrics.cohen_kappa_score(label, predicted)),
    }


def confusion_matrix(predicted: np.ndarray, label: np.ndarray, classes: int) -> list[list[int]]:
    """How many pixels of each class (row) were taken for which (column). Shape (classes, classes)."""
    from sklearn import metrics

    return metrics.confusion_matrix(label, predicted, labels=range(1, classes + 1)).tolist()
