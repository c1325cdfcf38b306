"""GoogLeNet on flowers: a training step and the test with ten crops, against torchvision's transforms of one picture
after the other, PyTorch's own local response normalization and memory format, and float32, as tutorials have it.

On a CPU only: the gradient of PyTorch's response normalization is not deterministic on a GPU.
"""

from functools import partial

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from common.publishing.bench import Job
from common.training.determinism import generator
from common.training.device import fast_precision
from papers.googlenet.crops import PROTOCOLS
from papers.googlenet.model import ALPHA, BETA, BIAS, SIDE, WINDOW, GoogLeNet, initialise
from papers.googlenet.sampling import AREA, ASPECT, stack, training_batch
from papers.googlenet.train import VARIANTS, as_input, classify, losses

RECIPE = VARIANTS["flowers"]
THREADS = WORKERS = 2
TRAINED, TESTED = 750, 250
CLASSES = 5
HEIGHT, WIDTH = 128, 171  # most pictures are 3 by 4
COUNT = {"training": 16, "testing": 4}  # pictures, at a time
CONSTANTS = {"lr": 1e-5, "momentum": RECIPE.momentum, "weight_decay": RECIPE.weight_decay}  # labels are random
SHORTER = PROTOCOLS[10].scales[0] * RECIPE.side // SIDE


class Pictures(Dataset):
    """Pictures as PIL has them, each turned into what the network takes when it is asked for."""

    def __init__(self, pictures: list[Tensor], labels: Tensor, transform: transforms.Compose):
        self.pictures = [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in pictures]
        self.labels, self.transform = labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        return self.transform(self.pictures[number]), self.labels[number]


def jobs() -> list[Job]:
    return [_step(), _test()]


def _step() -> Job:
    pictures, labels, mean = _pictures(COUNT["training"])
    shown, precision = stack(pictures), fast_precision("cpu")
    model, slow = _model(), _straightforward_model()
    optimiser = torch.optim.SGD(model.parameters(), fused=True, **CONSTANTS)
    slow_optimiser = torch.optim.SGD(slow.parameters(), **CONSTANTS)
    patch = transforms.RandomResizedCrop(RECIPE.side, AREA, ASPECT), transforms.RandomHorizontalFlip()
    distorted = transforms.ColorJitter(*[RECIPE.distortion] * 3), partial(_centred, mean=mean)
    loader = _loader(pictures, labels, [*patch, *distorted], COUNT["training"])

    def ours() -> int:
        model.train()
        seen = training_batch(shown, RECIPE.side, RECIPE.distortion, generator(0, "patches"))
        _, loss, of_heads = losses(model, as_input(seen, mean, RECIPE), labels, generator(0, "dropout"), precision)
        optimiser.zero_grad()
        (loss + RECIPE.head_weight * of_heads).backward()
        optimiser.step()
        return len(labels)

    def straightforward() -> int:
        slow.train()
        for batch, label in loader:
            slow_optimiser.zero_grad()
            first, *others = (F.cross_entropy(logits, label) for logits in slow(batch, generator(0, "dropout")))
            (first + RECIPE.head_weight * sum(others)).backward()
            slow_optimiser.step()
        return len(labels)

    whole, samples = f"{RECIPE.epochs} epochs", RECIPE.epochs * TRAINED
    flops = 3 * _flops_forward(training=True)  # the way back costs twice the way forward
    return Job("training step", ours, straightforward, flops, THREADS, whole, samples, precision)


def _test() -> Job:
    pictures, labels, mean = _pictures(COUNT["testing"])
    model, slow = _model(), _straightforward_model().eval()
    ten = transforms.Resize(SHORTER), transforms.TenCrop(RECIPE.side), partial(_all_centred, mean=mean)
    loader = _loader(pictures, labels, [*ten], at_once=1)

    def ours() -> int:
        classify(model, pictures, mean, RECIPE, PROTOCOLS[10])
        return len(pictures)

    @torch.no_grad()
    def straightforward() -> int:
        for crops, _ in loader:
            slow(crops[0]).softmax(1).mean(0)
        return len(pictures)

    flops = len(PROTOCOLS[10]) * _flops_forward(training=False)
    return Job("testing, 10 crops", ours, straightforward, flops, THREADS, "the test set", TESTED)


def _pictures(count: int) -> tuple[list[Tensor], Tensor, Tensor]:
    """Made-up pictures, their labels, and a mean colour."""
    draw = generator(0, "benchmark")
    pictures = torch.randint(256, (count, 3, HEIGHT, WIDTH), generator=draw, dtype=torch.uint8)
    return list(pictures), torch.randint(CLASSES, (count,), generator=draw), torch.full((3, 1, 1), 128.0)


def _centred(picture: Image.Image, mean: Tensor) -> Tensor:
    return transforms.functional.pil_to_tensor(picture) - mean


def _all_centred(pictures: tuple[Image.Image, ...], mean: Tensor) -> Tensor:
    return torch.stack([_centred(picture, mean) for picture in pictures])


def _loader(pictures: list[Tensor], labels: Tensor, steps: list, at_once: int) -> DataLoader:
    shown = Pictures(pictures, labels, transforms.Compose(steps))
    return DataLoader(shown, at_once, shuffle=True, num_workers=WORKERS, persistent_workers=True)


def _model() -> GoogLeNet:
    model = GoogLeNet(CLASSES, RECIPE.network, RECIPE.heads, RECIPE.side)
    initialise(model, generator(0, "benchmark weights"), RECIPE.initial_weights)
    return model


def _straightforward_model() -> GoogLeNet:
    model = _model().to(memory_format=torch.contiguous_format)
    model.norm1, model.norm2 = (nn.LocalResponseNorm(WINDOW, ALPHA, BETA, BIAS) for _ in range(2))
    return model


def _flops_forward(training: bool) -> int:
    """Of one picture: a multiplication and an addition for every product. The heads work in training only."""
    with FlopCounterMode(display=False) as counter:
        _model().train(training)(torch.zeros(1, 3, RECIPE.side, RECIPE.side), generator(0, "dropout"))
    return counter.get_total_flops()
