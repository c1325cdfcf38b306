"""SE-ResNet-20 on CIFAR-10: a training step and the test, against pictures that PIL turns and workers bring, float32
and PyTorch's own memory format, as tutorials have it."""

import random

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from common.data.cifar10 import CLASSES, SIDE, on_device
from common.publishing.bench import Job
from common.training.determinism import generator
from common.training.device import fast_precision
from common.training.steps import fast_step
from common.training.winograd import use_winograd
from papers.senet.data import PADDING, augment, of_each_pixel, random_crops
from papers.senet.model import initialise
from papers.senet.train import VARIANTS, build_model, classify, loss_and_mistakes

RECIPE = VARIANTS["se-resnet20"]
STEPS = 4
THREADS = WORKERS = 2
TRAINED, TESTED = RECIPE.iterations * RECIPE.batch_size, 10_000
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
    return [_step(images, labels, device), _test(images, labels, device)]


def flops_forward() -> int:
    """Of one picture: a multiplication and an addition for every product."""
    with FlopCounterMode(display=False) as counter:
        build_model(RECIPE)(torch.zeros(1, 3, SIDE, SIDE))
    return counter.get_total_flops()


def _step(images: Tensor, labels: Tensor, device: str) -> Job:
    here, there, standard = on_device(images, device), labels.to(device), of_each_pixel(images)
    loader = _loader(images, labels, standard.mean, training=True)
    standard = standard.to(device)
    precision = fast_precision(device)
    model, slow = _model(device), _model(device).to(memory_format=torch.contiguous_format)
    optimiser = torch.optim.SGD(model.parameters(), fused=True, **CONSTANTS)
    slow_optimiser = torch.optim.SGD(slow.parameters(), **CONSTANTS)
    example = standard(here[: RECIPE.batch_size]), there[: RECIPE.batch_size]
    use_winograd(model, precision)
    step, _ = fast_step(loss_and_mistakes(model, precision), model, [example])

    def ours() -> int:
        model.train()
        for index, batch in enumerate(torch.arange(len(here), device=device).split(RECIPE.batch_size)):
            step(augment(here[batch], standard, random_crops(len(batch), 0, 0, index)), there[batch])
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
    here, standard = on_device(images, device), of_each_pixel(images)
    loader = _loader(images, labels, standard.mean, training=False)
    standard = standard.to(device)
    model, slow = _model(device), _model(device).to(memory_format=torch.contiguous_format).eval()

    def ours() -> int:
        classify(model, here, standard)
        return len(here)

    @torch.no_grad()
    def straightforward() -> int:
        for batch, _ in loader:
            slow(batch.to(device)).argmax(1).cpu()
        return len(images)

    whole = "the test set"
    return Job("testing", ours, straightforward, flops_forward(), THREADS, whole, TESTED, torch.float32, device)


def _loader(images: Tensor, labels: Tensor, mean: Tensor, training: bool) -> DataLoader:
    pictures = Pictures(images, labels, mean, training)
    return DataLoader(pictures, RECIPE.batch_size, shuffle=training, num_workers=WORKERS, persistent_workers=True)


def _model(device: str) -> nn.Module:
    model = build_model(RECIPE)
    initialise(model, generator(0, "benchmark weights"))
    return model.to(device)


def _wait(device: str) -> None:
    """A GPU works on after it was asked to."""
    if device == "cuda":
        torch.cuda.synchronize()
