"""The patches that train GoogLeNet: by distribution, and on pictures whose pixels hold their own coordinates."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from scipy import stats
from torch import Tensor

from common.training.determinism import generator
from papers.googlenet import sampling
from papers.googlenet.sampling import Patches, cut, draw_patches, patches_of, photometric, resize, stack, training_batch

MANY = 20_000


def sizes(height: int, width: int, count: int = MANY) -> tuple[Tensor, Tensor]:
    return torch.full((count,), height), torch.full((count,), width)


def coordinates(height: int, width: int) -> Tensor:
    """(3, height, width): the row, the column, and 7."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns, torch.full_like(rows, 7)]).float()


def colours(count: int, side: int = 12, seed: int = 0) -> Tensor:
    """(count, 3, side, side), uint8."""
    return torch.randint(256, (count, 3, side, side), dtype=torch.uint8, generator=generator(seed, "colours"))


def at(top: int, left: int, height: int, width: int, mirrored: bool = False) -> Patches:
    return Patches(*(torch.tensor([value]) for value in (top, left, height, width, mirrored)))


# ---- where patches lie ------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(375, 500), (500, 375), (128, 156), (128, 128), (128, 662), (700, 130)])
def test_patches_lie_within_their_pictures(shape):
    patches = draw_patches(*sizes(*shape), generator(0, "patches"))
    assert (patches.top >= 0).all() and (patches.top + patches.height <= shape[0]).all()
    assert (patches.left >= 0).all() and (patches.left + patches.width <= shape[1]).all()
    assert min(patches.height.min(), patches.width.min()) > 0


@pytest.mark.parametrize("shape", [(375, 500), (500, 375), (400, 400), (200, 1000)])
def test_areas_and_aspects_are_the_papers(shape):
    """To a pixel's rounding: 8 to 100 percent of the area, 3/4 to 4/3."""
    patches = draw_patches(*sizes(*shape), generator(0, "patches"))
    height, width = patches.height.double(), patches.width.double()
    share = height * width / math.prod(shape)
    aspect = width / height
    assert 0.075 < share.min() < 0.09 and share.max() <= 1
    assert 0.73 < aspect.min() < 0.76 and 1.31 < aspect.max() < 1.36


def test_areas_are_even_where_every_shape_fits(monkeypatch):
    """Up to half the area: a patch of that and any aspect fits into a square."""
    monkeypatch.setattr(sampling, "AREA", (0.08, 0.5))
    patches = draw_patches(*sizes(1000, 1000), generator(0, "patches"))
    share = (patches.height * patches.width).double() / 1e6
    assert stats.kstest(share, stats.uniform(0.08, 0.42).cdf).pvalue > 0.01
    aspect = (patches.width / patches.height).double().log()
    assert stats.kstest(aspect, stats.uniform(math.log(3 / 4), 2 * math.log(4 / 3)).cdf).pvalue > 0.01


def test_areas_are_even_among_patches_that_fit():
    """Nearly all fit into 3 by 4 with the picture's own aspect: their areas reach from 8 to 100 percent."""
    height, width = sizes(900, 1200)
    patches = draw_patches(height, width, generator(0, "patches"))
    share = (patches.height * patches.width).double() / (900 * 1200)
    expected = drawn_one_by_one(900, 1200)
    assert stats.ks_2samp(share, expected).pvalue > 0.01


def drawn_one_by_one(height: int, width: int) -> np.ndarray:
    """The same rule in a loop: shares of patches that fit."""
    draw = np.random.default_rng(0)
    shares = []
    while len(shares) < MANY // 2:
        share, aspect = draw.uniform(0.08, 1), math.exp(draw.uniform(math.log(3 / 4), math.log(4 / 3)))
        across, down = math.sqrt(share * height * width * aspect), math.sqrt(share * height * width / aspect)
        if round(across) <= width and round(down) <= height:
            shares.append(round(across) * round(down) / (height * width))
    return np.array(shares)


def test_places_are_even():
    patches = draw_patches(*sizes(400, 500), generator(0, "patches"))
    for begin, size, length in ((patches.top, patches.height, 400), (patches.left, patches.width, 500)):
        room = length - size
        roomy = room > 50  # else whole pixels are too coarse for the comparison
        place = ((begin + 0.5) / (room + 1))[roomy].double()
        assert stats.kstest(place, "uniform").pvalue > 0.001
        assert (begin == 0).any() and (begin == room).any()


def test_half_of_the_patches_are_mirrored():
    mirrored = draw_patches(*sizes(400, 500), generator(0, "patches")).mirrored
    assert abs(mirrored.double().mean() - 0.5) < 4 * 0.5 / MANY**0.5


@pytest.mark.parametrize(("shape", "box"), [((100, 1000), (0, 433, 100, 133)), ((1000, 100), (433, 0, 133, 100))])
def test_where_no_patch_fits_the_largest_in_the_middle_is_taken(shape, box, monkeypatch):
    monkeypatch.setattr(sampling, "AREA", (0.9, 1.0))
    patches = draw_patches(*sizes(*shape, 50), generator(0, "patches"))
    drawn = torch.stack([patches.top, patches.left, patches.height, patches.width], dim=1)
    assert drawn.unique(dim=0).tolist() == [list(box)]


# ---- what is cut ------------------------------------------------------------------------


def test_a_patch_that_is_not_resized_holds_the_pixels_of_its_place():
    picture = coordinates(60, 80)
    patch, mirrored = (cut(stack([picture]), at(11, 23, 32, 32, mirrored), 32)[0] for mirrored in (False, True))
    assert torch.equal(patch, picture[:, 11:43, 23:55])
    assert torch.equal(mirrored, picture[:, 11:43, 23:55].flip(2))


@pytest.mark.parametrize("box", [(10, 20, 40, 30), (0, 0, 100, 120), (70, 90, 24, 28)])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("upright", [False, True])
def test_a_resized_patch_holds_the_pixels_of_its_place(box, mirrored, upright):
    """Pixel i of n comes from begin + (i + 1/2) * size / n - 1/2; upright ones lie on their side."""
    top, left, height, width = box if not upright else (box[1], box[0], box[3], box[2])
    picture = coordinates(120, 100) if upright else coordinates(100, 120)
    patch = cut(stack([picture]), at(*box, mirrored), 32)[0]
    middle = torch.arange(32) + 0.5
    columns = left + middle * width / 32 - 0.5
    inner = slice(2, -2)
    torch.testing.assert_close(patch[0, inner, 7], (top + middle * height / 32 - 0.5)[inner], rtol=0, atol=0.1)
    expected = columns.flip(0) if mirrored else columns
    torch.testing.assert_close(patch[1, 7, inner], expected[inner], rtol=0, atol=0.1)
    assert (patch[2] - 7).abs().max() < 1e-5


def test_patches_of_a_batch_are_resized_as_each_alone():
    """Shrunk and enlarged, of pictures of several sizes; a pixel beyond a patch's edge has no part in it."""
    sizes = [(50, 80), (90, 60), (64, 64), (40, 90)]
    pictures = [torch.randint(256, (3, *size), generator=generator(0, "pictures", i)) for i, size in enumerate(sizes)]
    pictures = [picture.byte() for picture in pictures]
    boxes = torch.tensor([(3, 5, 40, 70), (0, 0, 60, 90), (10, 20, 20, 17), (30, 60, 8, 9)])
    mirrored = torch.tensor([False, True, True, False])
    batch = cut(stack(pictures), Patches(*boxes.T, mirrored), 24)
    for number, (picture, (top, left, height, width)) in enumerate(zip(pictures, boxes.tolist(), strict=True)):
        upright = picture.shape[1] > picture.shape[2]
        lying = picture.mT if upright else picture
        expected = resize(lying[:, top : top + height, left : left + width].float(), 24, 24)
        expected = expected.mT if upright else expected
        expected = expected.flip(2) if mirrored[number] else expected
        torch.testing.assert_close(batch[number], expected, rtol=0, atol=1e-3)


def test_a_stack_gives_the_pictures_that_it_is_asked_for():
    sizes = [(50, 80), (90, 60), (64, 64)]
    pictures = [torch.full((3, *size), number, dtype=torch.uint8) for number, size in enumerate(sizes, start=1)]
    some = stack(pictures)[torch.tensor([2, 1])]
    assert some.pixels.shape == (2, 3, 64, 90) and some.upright.tolist() == [False, True]
    assert (some.heights.tolist(), some.widths.tolist()) == ([64, 60], [64, 90])
    assert (some.pixels[0, :, :64, :64] == 3).all() and (some.pixels[1, :, :60, :90] == 2).all()


@pytest.mark.parametrize("shape", [(31, 47), (90, 20)])
def test_resizing_is_pils(shape):
    """Bilinear, and averaged where it shrinks, as PIL does it with bytes."""
    picture = torch.randint(256, (3, 60, 60), dtype=torch.uint8, generator=generator(0, "picture"))
    array = picture.permute(1, 2, 0).numpy()
    expected = np.asarray(Image.fromarray(array).resize(shape[::-1], Image.Resampling.BILINEAR))
    found = resize(picture, *shape).permute(1, 2, 0).numpy()
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_a_patch_of_each_picture_in_order():
    pictures = [torch.full((3, 40 + number, 60 - number), number, dtype=torch.uint8) for number in range(5)]
    batch = training_batch(stack(pictures), 16, 0.0, generator(0, "sampling"))
    assert batch.shape == (5, 3, 16, 16) and batch.dtype == torch.float32
    assert batch.mean(dim=(1, 2, 3)).tolist() == pytest.approx(range(5), abs=1e-4)


@pytest.mark.parametrize("shape", [(60, 80), (90, 40)])
def test_a_patch_of_a_picture_to_be_decoded_is_that_of_one_in_memory(shape):
    """Drawn before the picture's size is known, and cut from bytes, which are rounded; mirrored and not."""
    picture = torch.randint(256, (3, *shape), dtype=torch.uint8, generator=generator(0, "picture"))
    numbers = torch.tensor([7] * 12)
    boxes = draw_patches(*sizes(*shape, 12), generator(0, "patches"))
    for number, patch in enumerate(patches_of(numbers, generator(0, "patches"))):
        top, left, height, width = (values[number] for values in (boxes.top, boxes.left, boxes.height, boxes.width))
        expected = resize(picture[:, top : top + height, left : left + width].float(), 24, 24)
        expected = expected.flip(2) if boxes.mirrored[number] else expected
        found = patch.cut(picture, 24)
        assert patch.number == 7 and found.dtype == torch.uint8
        torch.testing.assert_close(found.float(), expected, rtol=0, atol=1.5)
    assert 0 < boxes.mirrored.sum() < 12


def test_a_batch_is_drawn_from_its_generator_alone():
    pictures = stack(list(colours(4, 40)))
    before = torch.get_rng_state()
    one, same, other = (training_batch(pictures, 16, 0.5, generator(0, "sampling", index=i)) for i in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


# ---- photometric distortions --------------------------------------------------------------


def order_of(draw: torch.Generator, count: int) -> Tensor:
    """The orders that `photometric` draws first."""
    return torch.rand(count, 3, generator=draw).argsort(dim=1)


def test_distortions_are_those_of_pil():
    """Each picture by PIL, in the order and with the factors that were drawn for it."""
    pictures, count = colours(24), 24
    draw = generator(0, "distortions")
    orders = order_of(draw, count)
    factors = torch.empty(count, 3).uniform_(0.5, 1.5, generator=draw)
    assert len(orders.unique(dim=0)) == 6
    enhance = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    found = photometric(pictures.float(), 0.5, generator(0, "distortions"))
    for number in range(count):
        image = Image.fromarray(pictures[number].permute(1, 2, 0).numpy())
        for change, factor in zip(orders[number].tolist(), factors[number].tolist(), strict=True):
            image = enhance[change](image).enhance(factor)
        expected = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()
        # PIL rounds to whole values after every change.
        torch.testing.assert_close(found[number], expected, rtol=0, atol=4)


def test_distortions_of_strength_0_change_nothing():
    pictures = colours(5).float()
    torch.testing.assert_close(photometric(pictures, 0.0, generator(0, "distortions")), pictures)


def test_all_orders_and_all_shares_are_equally_likely():
    draw = generator(0, "distortions")
    _, counts = order_of(draw, 6_000).unique(dim=0, return_counts=True)
    assert len(counts) == 6 and stats.chisquare(counts).pvalue > 0.01
    # A white picture without contrast or colour shows its brightness, where that is below 1.
    white = photometric(torch.full((6_000, 3, 1, 1), 255.0), 0.5, generator(0, "distortions"))[:, 0, 0, 0] / 255
    darkened = white[white < 1].double()
    assert abs(len(darkened) / 6_000 - 0.5) < 0.03
    assert stats.kstest(darkened, stats.uniform(0.5, 0.5).cdf).pvalue > 0.01


def test_values_stay_within_their_range():
    pictures = colours(50).float()
    found = photometric(pictures, 0.9, generator(0, "distortions"))
    assert found.min() >= 0 and found.max() <= 255
    assert (found == 255).any() and found.shape == pictures.shape


def test_the_pictures_themselves_are_left_as_they_are():
    pictures = colours(3).float()
    before = pictures.clone()
    photometric(pictures, 0.5, generator(0, "distortions"))
    assert torch.equal(pictures, before)
