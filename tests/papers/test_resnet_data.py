"""How the ResNet paper prepares CIFAR-10, against torchvision's transforms and by definition."""

import pytest
import torch
from torchvision.transforms import functional as vision

from common.training.determinism import generator
from papers.resnet.data import PADDING, Crops, augment, mean_picture, random_crops, subtract_mean


def bytes_of(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(256, (count, 3, 32, 32), generator=generator(seed, "bytes"), dtype=torch.uint8)


def crop(top: int, left: int, mirrored: bool) -> Crops:
    return Crops(torch.tensor([top]), torch.tensor([left]), torch.tensor([mirrored]))


def test_the_mean_is_that_of_each_pixel():
    images = bytes_of(301)
    mean = mean_picture(images)
    assert mean.shape == (1, 3, 32, 32) and mean.dtype == torch.float32
    torch.testing.assert_close(mean[0], images.double().mean(0).float(), rtol=1e-7, atol=0)
    assert torch.equal(subtract_mean(images, mean), images.float() - mean)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_crops_and_mirror_images_are_torchvisions_for_the_same_offsets(memory_format):
    offsets = [(top, left, mirrored) for top in range(9) for left in range(9) for mirrored in (False, True)]
    images, mean = bytes_of(len(offsets)), mean_picture(bytes_of(50, seed=1))
    crops = Crops(*map(torch.tensor, zip(*offsets, strict=True)))
    batch = augment(images.contiguous(memory_format=memory_format), mean, crops)
    assert batch.shape == images.shape and batch.dtype == torch.float32
    assert batch.is_contiguous(memory_format=torch.channels_last)
    for image, ours, (top, left, mirrored) in zip(images, batch, offsets, strict=True):
        theirs = vision.crop(vision.pad(image - mean[0], [PADDING]), top, left, 32, 32)
        assert torch.equal(ours, vision.hflip(theirs) if mirrored else theirs)


def test_the_crop_in_the_middle_is_the_picture():
    images, mean = bytes_of(1), mean_picture(bytes_of(50, seed=1))
    assert torch.equal(augment(images, mean, crop(4, 4, False)), subtract_mean(images, mean))
    assert torch.equal(augment(images, mean, crop(4, 4, True)), subtract_mean(images, mean).flip(3))


def test_the_padding_is_zero_after_the_mean_is_subtracted():
    """Padded before, it would be less than the mean: -100 and not 0."""
    images, mean = torch.full((1, 3, 32, 32), 130, dtype=torch.uint8), torch.full((1, 3, 32, 32), 100.0)
    batch = augment(images, mean, crop(0, 8, False))
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[4:, :28] = True
    assert (batch[0, :, inside] == 30).all() and (batch[0, :, ~inside] == 0).all()


def test_each_offset_and_both_sides_are_equally_likely():
    crops = random_crops(90_000, seed=0, epoch=1, index=2)
    for offsets in (crops.top, crops.left):
        assert (offsets.bincount(minlength=9) - 10_000).abs().max() < 450 and offsets.max() == 8
    assert abs(crops.mirrored.sum().item() - 45_000) < 700
    both = crops.top * 9 + crops.left
    assert (both.bincount(minlength=81) - 90_000 / 81).abs().max() < 160


def test_crops_depend_on_seed_epoch_and_index_and_on_nothing_else():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    names = [(0, 1, 2), (0, 1, 3), (0, 2, 2), (1, 1, 2)]
    drawn = [random_crops(64, *name) for name in names]
    torch.manual_seed(2)
    again = random_crops(64, *names[0])
    assert torch.equal(drawn[0].top, again.top) and torch.equal(drawn[0].mirrored, again.mirrored)
    assert not any(torch.equal(drawn[0].left, other.left) for other in drawn[1:])
    torch.manual_seed(1)
    random_crops(64, 0, 0, 0)
    assert torch.equal(torch.get_rng_state(), state)
