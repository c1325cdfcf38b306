"""Measure DnCNN weights on the test sets, or restore a picture with them.

bash reproduce.sh eval dncnn
python -m papers.dncnn.eval --weights FILE --image PICTURE
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from common.base.progress import WorkBar, say
from common.data.passports import LocatedData
from common.training.evaluation import Measured
from common.training.records import Metrics
from common.training.weights import fit_weights
from papers.dncnn import degrade
from papers.dncnn.data import SCALES, load
from papers.dncnn.model import TILE, DnCNN, denoise, for_inference
from papers.dncnn.noisy_sets import as_label, denoised_groups, labels_of, mean_psnr, noisy_groups
from papers.dncnn.scores import PEAK, psnr, ssim, to_8bit
from papers.dncnn.train import Recipe

PICTURE_BY_PICTURE = "set12"  # the test set whose pictures the paper lists (Table III)
DENOISED = ("bsd68", "set12", "cbsd68", "held-out")
SUPER_RESOLVED = ("set5", "set14", "bsd100", "urban100")
DEBLOCKED = ("classic5", "live1")
TEST_QUALITIES = (10, 20, 30, 40)


def evaluate(weights: dict[str, Tensor], recipe: Recipe, data: LocatedData, device: str) -> Measured:
    """PSNR on every test set; for DnCNN-3 SSIM too, as in the paper.

    Where the recipe holds training pictures out, they take the test sets' place.

    Raises:
        UsageError: the weights belong to another model.
    """
    network = load_network(weights, recipe, device)
    measured = Measured({})
    for test, pictures in load(data, recipe.held_out).tests.items():
        if test in DENOISED:
            labels = labels_of(pictures.values(), recipe.channels)
            for sigma in recipe.test_sigmas:
                found = denoising_scores(network, labels, test, sigma, recipe, device)
                measured.metrics.update(found.metrics)
                measured.details.update(found.details)
        elif test in SUPER_RESOLVED:
            for scale in SCALES:
                restored = super_resolved(network, pictures.values(), scale, device)
                measured.metrics[f"{test}-x{scale}"] = mean_of_pictures(restored)
        elif test in DEBLOCKED:
            for quality in TEST_QUALITIES:
                restored = deblocked(network, pictures.values(), quality, device)
                measured.metrics[f"{test}-q{quality}"] = mean_of_pictures(restored)
        else:
            raise ValueError(f"nothing says what {test} measures")
    return measured


def load_network(weights: dict[str, Tensor], recipe: Recipe, device: str) -> nn.Module:
    """With or without batch normalization, as the weights are: those that the authors released have it merged.

    Raises:
        UsageError: the weights belong to another model.
    """
    batch_norm = any(name.endswith("running_mean") for name in weights)
    model = DnCNN(recipe.depth, recipe.channels, batch_norm=batch_norm, residual=recipe.residual)
    fit_weights(model, weights)
    return for_inference(model.to(device))


def denoising_scores(
    network: nn.Module, labels: list[Tensor], test: str, sigma: float, recipe: Recipe, device: str
) -> Measured:
    """Of one test set at one noise level."""
    rounded, floating, similarity = (torch.zeros(len(labels), dtype=torch.float64) for _ in range(3))
    for numbers, denoised, label in denoised_groups(network, noisy_groups(labels, sigma, device)):
        rounded[numbers] = psnr(to_8bit(denoised), label).cpu()
        floating[numbers] = psnr(denoised * PEAK, label).cpu()
        if recipe.three_tasks:
            similarity[numbers] = ssim(to_8bit(denoised), label).cpu()
    protocol = f"{test}-sigma{sigma:g}"
    metrics: Metrics = {
        protocol: {"psnr": rounded.mean().item()},
        f"{protocol}-float": {"psnr": floating.mean().item()},
        f"{protocol}-8bit-input": {"psnr": mean_psnr(network, noisy_groups(labels, sigma, device, quantised=True))},
    }
    if recipe.three_tasks:
        metrics[protocol]["ssim"] = similarity.mean().item()
    if test == PICTURE_BY_PICTURE:
        for number, value in enumerate(rounded.tolist(), start=1):
            metrics[f"{test}-{number:02d}-sigma{sigma:g}"] = {"psnr": value}
    say(f"{protocol}: {rounded.mean():.3f} dB")
    return Measured(metrics, {f"{protocol}: each picture": rounded.tolist()})


def super_resolved(network: nn.Module, pictures, scale: int, device: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Restored and true luminance, 0 to 255, not rounded, without a border of `scale` pixels."""
    for picture in pictures:
        whole = degrade.crop_to_multiple(picture, scale)
        restored = restore_plane(network, degrade.small_and_large_again(whole, scale), device)
        label = torch.from_numpy(degrade.luminance(whole / 255.0) * PEAK)[None, None].to(device)
        border = slice(scale, -scale)
        yield restored[..., border, border] * PEAK, label[..., border, border]


def deblocked(network: nn.Module, pictures, quality: int, device: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Restored and true luminance, both of 8 bits."""
    for picture in pictures:
        label = degrade.luminance(picture)
        restored = restore_plane(network, degrade.jpeg(label, quality) / 255.0, device)
        yield to_8bit(restored), as_label(label)[None].to(device)


def restore_plane(network: nn.Module, plane: np.ndarray, device: str) -> Tensor:
    """A degraded plane (H, W), 0 to 1, restored. Shape (1, 1, H, W)."""
    return denoise(network, torch.from_numpy(plane).float()[None, None].to(device))


def mean_of_pictures(restored: Iterator[tuple[Tensor, Tensor]]) -> dict[str, float]:
    values = [torch.cat([psnr(picture, label), ssim(picture, label)]) for picture, label in restored]
    return dict(zip(("psnr", "ssim"), torch.stack(values).mean(dim=0).tolist(), strict=True))


def restore(weights: dict[str, Tensor], recipe: Recipe, picture: np.ndarray, device: str) -> np.ndarray:
    """Remove the noise from a picture of any size.

    A network for grey pictures sees each colour separately; one for colour sees a grey picture as three equal colours,
    and its three answers are averaged.

    Args:
        picture: (H, W) or (H, W, 3), uint8.

    Returns:
        The same shape, uint8.

    Raises:
        UsageError: the weights belong to another model.
    """
    network = load_network(weights, recipe, device)
    planes = as_label(picture) / PEAK
    seen = planes[:, None] if recipe.channels == 1 else planes.expand(3, -1, -1)[None]
    bar = WorkBar("restoring", seen.numel(), unit="values") if max(picture.shape[:2]) > TILE else None
    with bar or nullcontext():  # and one by one: a photograph is large
        restored = [denoise(network, part[None].to(device), advance=bar and bar.advance)[0] for part in seen]
    if recipe.channels == 3 and len(planes) == 1:
        restored = [restored[0].mean(dim=0, keepdim=True)]
    pixels = torch.cat([to_8bit(part).byte().cpu() for part in restored]).permute(1, 2, 0).numpy()
    return pixels.reshape(picture.shape)


class Denoiser(nn.Module):
    """A trained network that gives the clean picture, not the noise in it."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, noisy: Tensor) -> Tensor:
        """Noisy pictures (N, C, H, W), values 0 to 1 and beyond, of any size, to denoised ones of the same shape."""
        return denoise(self.network, noisy)


def predictor(weights: dict[str, Tensor], recipe: Recipe, training_data: Callable[[], LocatedData]) -> Denoiser:
    """The network with these weights, for `load_pretrained`.

    Raises:
        UsageError: the weights belong to another model.
    """
    return Denoiser(load_network(weights, recipe, "cpu"))


if __name__ == "__main__":
    from common.cli.commands import eval_paper_module

    eval_paper_module(__file__)
