"""GoogLeNet on ImageNet, at 224 pixels: a training step and the test with ten crops, from JPEG files on, against PIL
and torchvision's transforms of one picture after the other, PyTorch's own local response normalization and memory
format, and float32, as tutorials have it.

On a CPU only: the gradient of PyTorch's response normalization is not deterministic on a GPU.
"""

import io

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from common.data.decoding import Decoded
from common.data.imagenet import Encoded, Part
from common.data.photographs import PHOTOGRAPHS, shipped_photograph
from common.publishing.bench import Job
from common.training.determinism import generator
from common.training.device import fast_precision
from common.training.winograd import use_winograd
from papers.googlenet.crops import PROTOCOLS
from papers.googlenet.imagenet import VARIANTS, mistakes_on
from papers.googlenet.model import ALPHA, BETA, BIAS, WINDOW, GoogLeNet, initialise
from papers.googlenet.sampling import AREA, ASPECT, patches_of, photometric
from papers.googlenet.sgd import as_input, losses

RECIPE = VARIANTS["imagenet"]
THREADS = WORKERS = 2
TRAINED, TESTED, CLASSES = 1_281_167, 50_000, 1000
TYPICAL = (500, 375)  # pixels, of a picture of ImageNet
COUNT = {"training": 16, "testing": 3}  # pictures, at a time
CROPS = 10
CONSTANTS = {"lr": 1e-5, "momentum": RECIPE.momentum, "weight_decay": RECIPE.weight_decay}  # labels are random
MEAN = torch.full((3, 1, 1), 128.0)


class Pictures(Dataset):
    """Files, each decoded and turned into what the network takes when it is asked for."""

    def __init__(self, part: Part, transform: transforms.Compose):
        self.part, self.transform = part, transform

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        picture = Image.open(io.BytesIO(self.part.pictures.files[number])).convert("RGB")
        return self.transform(picture), int(self.part.labels[number])


def jobs() -> list[Job]:
    return [_step(), _test()]


def _step() -> Job:
    part, precision = _part(COUNT["training"]), fast_precision("cpu")
    model, slow = _model(), _straightforward_model()
    use_winograd(model, precision)
    optimiser = torch.optim.SGD(model.parameters(), fused=True, **CONSTANTS)
    slow_optimiser = torch.optim.SGD(slow.parameters(), **CONSTANTS)
    patch = transforms.RandomResizedCrop(RECIPE.side, AREA, ASPECT), transforms.RandomHorizontalFlip()
    distorted = transforms.ColorJitter(*[RECIPE.distortion] * 3), _centred
    loader = _loader(part, [*patch, *distorted], len(part))

    def ours() -> int:
        model.train()
        patches = patches_of(torch.arange(len(part)), generator(0, "patches"))
        (pixels,) = Decoded(part.pictures, lambda _: patches, 1, RECIPE.side, "cpu", workers=0)
        seen = as_input(photometric(pixels.float(), RECIPE.distortion, generator(0, "colours")), MEAN, RECIPE)
        _, loss, of_heads = losses(model, seen, part.labels, generator(0, "dropout"), precision)
        optimiser.zero_grad()
        (loss + RECIPE.head_weight * of_heads).backward()
        optimiser.step()
        return len(part)

    def straightforward() -> int:
        slow.train()
        for batch, label in loader:
            slow_optimiser.zero_grad()
            first, *others = (F.cross_entropy(logits, label) for logits in slow(batch, generator(0, "dropout")))
            (first + RECIPE.head_weight * sum(others)).backward()
            slow_optimiser.step()
        return len(part)

    flops = 3 * _flops_forward(training=True)  # the way back costs twice the way forward
    return Job("training step", ours, straightforward, flops, THREADS, "an epoch of ImageNet", TRAINED, precision)


def _test() -> Job:
    part = _part(COUNT["testing"])
    model, slow = _model(), _straightforward_model().eval()
    shorter = PROTOCOLS[CROPS].scales[0]
    ten = transforms.Resize(shorter), transforms.TenCrop(RECIPE.side), _all_centred
    loader = _loader(part, [*ten], at_once=1)

    def ours() -> int:
        mistakes_on([model], part, RECIPE, MEAN, CROPS)
        return len(part)

    @torch.no_grad()
    def straightforward() -> int:
        for crops, _ in loader:
            slow(crops[0]).softmax(1).mean(0)
        return len(part)

    flops = CROPS * _flops_forward(training=False)
    return Job(f"testing, {CROPS} crops", ours, straightforward, flops, THREADS, "the test set", TESTED)


def _part(count: int) -> Part:
    """Photographs as files of ImageNet are, over and over, with labels drawn at random."""
    files = []
    for name in PHOTOGRAPHS:
        file = io.BytesIO()
        shipped_photograph(name).convert("RGB").resize(TYPICAL).save(file, "JPEG", quality=95)
        files.append(file.getvalue())
    numbers = [number % len(files) for number in range(count)]
    labels = torch.randint(CLASSES, (count,), generator=generator(0, "benchmark"))
    return Part([PHOTOGRAPHS[n] for n in numbers], labels, Encoded([files[n] for n in numbers]))


def _centred(picture: Image.Image) -> Tensor:
    return transforms.functional.pil_to_tensor(picture) - MEAN


def _all_centred(pictures: tuple[Image.Image, ...]) -> Tensor:
    return torch.stack([_centred(picture) for picture in pictures])


def _loader(part: Part, steps: list, at_once: int) -> DataLoader:
    shown = Pictures(part, transforms.Compose(steps))
    return DataLoader(shown, at_once, shuffle=True, num_workers=WORKERS, persistent_workers=True)


def _model() -> GoogLeNet:
    model = GoogLeNet(CLASSES, side=RECIPE.side)
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
