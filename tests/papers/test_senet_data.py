"""How the SENet paper prepares CIFAR-10, against torchvision's transforms and the ResNet paper's way."""

import torch
from torchvision.transforms import functional as vision

from common.training.determinism import generator
from papers.resnet import data as resnet
from papers.senet.data import PADDING, Crops, augment, of_each_channel, of_each_pixel, random_crops


def bytes_of(count: int, seed: int = 0) -> torch.Tensor:
    levels = torch.randint(256, (count, 3, 32, 32), generator=generator(seed, "bytes"))
    return (levels // torch.tensor([1, 2, 3]).view(3, 1, 1)).to(torch.uint8)


def test_channels_are_standardised_to_mean_0_and_deviation_1():
    images = bytes_of(100)
    standardised = of_each_channel(images)(images)
    assert standardised.dtype == torch.float32 and standardised.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(standardised.double().mean((0, 2, 3)), torch.zeros(3).double(), rtol=0, atol=1e-6)
    deviation = standardised.double().std((0, 2, 3), correction=0)
    torch.testing.assert_close(deviation, torch.ones(3).double(), rtol=0, atol=1e-6)


def test_crops_and_mirror_images_are_torchvisions_for_the_same_offsets():
    offsets = [(top, left, mirrored) for top in range(9) for left in range(9) for mirrored in (False, True)]
    images, standard = bytes_of(len(offsets)), of_each_channel(bytes_of(50, seed=1))
    batch = augment(images, standard, Crops(*map(torch.tensor, zip(*offsets, strict=True))))
    assert batch.is_contiguous(memory_format=torch.channels_last)
    for image, ours, (top, left, mirrored) in zip(images, batch, offsets, strict=True):
        centred = (image - standard.mean[0]) / standard.deviation[0]
        theirs = vision.crop(vision.pad(centred, [PADDING]), top, left, 32, 32)
        assert torch.equal(ours, vision.hflip(theirs) if mirrored else theirs)


def test_the_padding_is_zero_after_standardising():
    images, standard = bytes_of(1), of_each_channel(bytes_of(50, seed=1))
    corner = augment(images, standard, Crops(torch.tensor([0]), torch.tensor([0]), torch.tensor([False])))
    assert (corner[0, :, :4] == 0).all() and (corner[0, :, :, :4] == 0).all()
    assert torch.equal(corner[0, :, 4:, 4:], standard(images)[0, :, :28, :28])


def test_with_the_mean_of_each_pixel_a_batch_is_the_resnet_papers_bit_for_bit():
    images = bytes_of(128)
    crops, theirs = random_crops(128, 3, 1, 2), resnet.random_crops(128, 3, 1, 2)
    expected = resnet.augment(images, resnet.mean_picture(images), theirs)
    assert torch.equal(augment(images, of_each_pixel(images), crops), expected)
    assert torch.equal(of_each_pixel(images)(images), resnet.subtract_mean(images, resnet.mean_picture(images)))
