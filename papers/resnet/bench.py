"""ResNet-20 on CIFAR-10: a training step and the test, against pictures that PIL turns and workers bring, float32
and PyTorch's own memory format, as tutorials have it. And the decoding of ImageNet's pictures, against PIL."""

import io
import random

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from common.data.cifar10 import CLASSES, SIDE, on_device
from common.data.colours import Colours
from common.data.decoding import Decoded
from common.data.imagenet import Encoded
from common.data.jitter import as_input, draw_views
from common.data.photographs import PHOTOGRAPHS, shipped_photograph
from common.publishing.bench import Job
from common.publishing.growth import Growth, seconds_a_sample
from common.training.determinism import generator
from common.training.device import fast_precision
from common.training.steps import fast_step
from common.training.winograd import use_winograd
from papers.resnet import imagenet
from papers.resnet.data import PADDING, augment, mean_picture, random_crops, subtract_mean
from papers.resnet.model import CifarResNet, initialise
from papers.resnet.train import VARIANTS, build_model, classify, loss_and_mistakes

RECIPE = VARIANTS["resnet20"]
STEPS = 4
THREADS = WORKERS = 2
TRAINED, TESTED = RECIPE.iterations * RECIPE.batch_size, 10_000
NETWORK = imagenet.VARIANTS["imagenet-resnet50"]
TYPICAL = (500, 375)  # pixels, of a picture of ImageNet
CONSTANTS = {"lr": 1e-4, "momentum": RECIPE.momentum, "weight_decay": RECIPE.weight_decay}  # labels are random


class Pictures(Dataset):
    """Pictures as PIL has them, each turned into what the network takes when it is asked for."""

    def __init__(self, images: Tensor, labels: Tensor, mean: Tensor, training: bool):
        self.images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
        self.labels, self.mean, self.training = labels.tolist(), mean[0].numpy(), training

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        image = self.images[number]
        if self.training:
            image = ImageOps.expand(image, PADDING)
            top, left = random.randint(0, 2 * PADDING), random.randint(0, 2 * PADDING)
            image = image.crop((left, top, left + SIDE, top + SIDE))
            if random.random() < 0.5:
                image = ImageOps.mirror(image)
        array = np.asarray(image, np.float32).transpose(2, 0, 1) - self.mean
        return torch.from_numpy(array), self.labels[number]


def jobs() -> list[Job]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    count, draw = STEPS * RECIPE.batch_size, generator(0, "benchmark")
    images = torch.randint(256, (count, 3, SIDE, SIDE), generator=draw, dtype=torch.uint8)
    labels = torch.randint(CLASSES, (count,), generator=draw)
    return [_step(images, labels, device), _test(images, labels, device), _decoding()]


def growth() -> list[Growth]:
    name = "ResNet-18: training, a picture of 56 pixels"
    return [Growth(name, "processes on the same cores", (1, 2), _seconds_a_picture, expected="constant")]


def _seconds_a_picture(processes: int) -> float:
    words = ("--variant", "imagenet-resnet18-B", "--preset", "smoke", "--iterations", "40")
    return seconds_a_sample("resnet", *words, "--nproc", str(processes))


def flops_forward() -> int:
    """Of one picture: a multiplication and an addition for every product."""
    with FlopCounterMode(display=False) as counter:
        build_model(RECIPE)(torch.zeros(1, 3, SIDE, SIDE))
    return counter.get_total_flops()


def _step(images: Tensor, labels: Tensor, device: str) -> Job:
    here, there, mean = on_device(images, device), labels.to(device), mean_picture(images)
    loader = _loader(images, labels, mean, training=True)
    mean = mean.to(device)
    precision = fast_precision(device)
    model, slow = _model(device), _model(device).to(memory_format=torch.contiguous_format)
    optimiser = torch.optim.SGD(model.parameters(), fused=True, **CONSTANTS)
    slow_optimiser = torch.optim.SGD(slow.parameters(), **CONSTANTS)
    example = subtract_mean(here[: RECIPE.batch_size], mean), there[: RECIPE.batch_size]
    use_winograd(model, precision)
    step, _ = fast_step(loss_and_mistakes(model, precision), model, [example])

    def ours() -> int:
        model.train()
        for index, batch in enumerate(torch.arange(len(here), device=device).split(RECIPE.batch_size)):
            step(augment(here[batch], mean, random_crops(len(batch), 0, 0, index)), there[batch])
            optimiser.step()
        _wait(device)
        return len(here)

    def straightforward() -> int:
        slow.train()
        for batch, label in loader:
            slow_optimiser.zero_grad()
            F.cross_entropy(slow(batch.to(device)), label.to(device)).backward()
            slow_optimiser.step()
        _wait(device)
        return len(images)

    flops = 3 * flops_forward()  # the way back costs twice the way forward
    whole = f"{RECIPE.iterations:,} iterations"
    return Job("training step", ours, straightforward, flops, THREADS, whole, TRAINED, precision, device)


def _test(images: Tensor, labels: Tensor, device: str) -> Job:
    here, mean = on_device(images, device), mean_picture(images)
    loader = _loader(images, labels, mean, training=False)
    mean = mean.to(device)
    model, slow = _model(device), _model(device).to(memory_format=torch.contiguous_format).eval()

    def ours() -> int:
        classify(model, here, mean)
        return len(here)

    @torch.no_grad()
    def straightforward() -> int:
        for batch, _ in loader:
            slow(batch.to(device)).argmax(1).cpu()
        return len(images)

    whole = "the test set"
    return Job("testing", ours, straightforward, flops_forward(), THREADS, whole, TESTED, torch.float32, device)


def _decoding() -> Job:
    """Until the network could take them, as one process does it. Its arithmetic is counted for the resizing alone: in
    each direction two pixels."""
    from torchvision import transforms

    files = []
    for name in PHOTOGRAPHS:
        file = io.BytesIO()
        shipped_photograph(name).convert("RGB").resize(TYPICAL).save(file, "JPEG", quality=95)
        files.append(file.getvalue())
    pictures = Encoded(files)
    numbers = torch.arange(len(files))
    views = draw_views(len(files), NETWORK.scales, generator(0, "benchmark"))
    finish = transforms.Compose(
        [
            transforms.RandomCrop(NETWORK.side),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
        ]
    )

    colours = Colours(torch.full((3,), 128.0), torch.zeros(3, 3))

    def ours() -> int:
        (crops,) = Decoded(pictures, lambda _: views.crops(numbers), 1, NETWORK.side, "cpu", workers=0)
        return len(as_input(crops, colours, views))

    def straightforward() -> int:
        for file, shorter in zip(files, views.shorter.tolist(), strict=True):
            finish(transforms.functional.resize(Image.open(io.BytesIO(file)).convert("RGB"), shorter))
        return len(files)

    flops, whole = 2 * 2 * 2 * 3 * NETWORK.side**2, f"{NETWORK.iterations:,} iterations, on one core"
    samples = NETWORK.iterations * NETWORK.batch_size
    return Job("ImageNet decoding", ours, straightforward, flops, threads=1, whole=whole, samples=samples)


def _loader(images: Tensor, labels: Tensor, mean: Tensor, training: bool) -> DataLoader:
    pictures = Pictures(images, labels, mean, training)
    return DataLoader(pictures, RECIPE.batch_size, shuffle=training, num_workers=WORKERS, persistent_workers=True)


def _model(device: str) -> CifarResNet:
    model = build_model(RECIPE)
    initialise(model, generator(0, "benchmark weights"))
    return model.to(device)


def _wait(device: str) -> None:
    """A GPU works on after it was asked to."""
    if device == "cuda":
        torch.cuda.synchronize()
