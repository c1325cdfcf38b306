"""Crops are cut where their numbers say, in whatever process they are decoded; tests take one of them or ten."""

import os

import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms.functional import ten_crop

from common.base.errors import DataError, MachineError
from common.data import colours, decoding
from common.data.colours import colours_of
from common.data.decoding import Crop, Decoded, Whole, centre, of_one_shape, one_crop, ten_crops
from common.data.imagenet import load
from common.data.jitter import Views, as_input, draw_views
from common.data.passports import LocatedData
from common.training.determinism import generator

SIDE, BATCHES, BATCH = 24, 5, 4


@pytest.fixture(scope="module")
def pictures():
    return load(LocatedData("imagenet", "stand-in", None, {})).train.pictures


def crops(batch: int) -> list[Crop]:
    draw = generator(0, "test", 0, batch)
    numbers = torch.randint(120, (BATCH,), generator=draw).tolist()
    places = torch.rand(BATCH, 2, generator=draw).tolist()
    return [Crop(number, 28 + batch, *place) for number, place in zip(numbers, places, strict=True)]


def decoded(pictures, workers=0, batches=BATCHES) -> Decoded:
    return Decoded(pictures, crops, batches, SIDE, "cpu", workers)


# ---- one crop -------------------------------------------------------------------------------------


def test_a_crop_of_a_picture_that_keeps_its_size_is_a_part_of_it(pictures):
    picture = pictures[3]
    height, width = picture.shape[1:]
    shorter, last = min(height, width), 1 - 1e-9
    for row, column, top, left in [(0, 0, 0, 0), (last, last, height - SIDE, width - SIDE)]:
        expected = picture[:, top : top + SIDE, left : left + SIDE]
        assert torch.equal(Crop(3, shorter, row, column).cut(picture, SIDE), expected)
    middle = centre(3, shorter).cut(picture, shorter)
    assert torch.equal(middle, picture[:, :, (width - height + 1) // 2 :][:, :, :shorter])


@pytest.mark.parametrize("factor", [2, 3])
def test_a_crop_is_that_of_the_resized_picture(factor):
    """Up to its edges, where the picture goes on and the crop does not."""
    height, width = 60, 90
    draw = generator(0, "picture")
    picture = torch.randint(256, (3, height * factor, width * factor), generator=draw, dtype=torch.uint8)
    # The room, in pixels of the picture, is one more than a multiple of the factor: both begin on the same pixel.
    row, column = (
        (factor * 8 + 0.5) / (factor * (height - SIDE) + 1),
        (factor * 30 + 0.5) / (factor * (width - SIDE) + 1),
    )
    ours = Crop(0, height, row, column).cut(picture, SIDE)
    resized = F.interpolate(picture[None], (height, width), mode="bilinear", antialias=True)[0]
    difference = ours.int() - resized[:, 8 : 8 + SIDE, 30 : 30 + SIDE].int()
    assert difference[:, 2:-2, 2:-2].abs().max() <= 1 < difference.abs().max()


# ---- batches --------------------------------------------------------------------------------------


def test_batches_are_the_same_whatever_the_number_of_workers(pictures):
    before = torch.get_rng_state()
    alone, *others = ([batch.clone() for batch in decoded(pictures, workers)] for workers in (0, 1, 2))
    assert [batch.shape for batch in alone] == [(BATCH, 3, SIDE, SIDE)] * BATCHES
    assert not torch.equal(alone[0], alone[1])
    for batches in others:
        assert all(torch.equal(one, other) for one, other in zip(alone, batches, strict=True))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_is_the_same_whatever_is_decoded_in_a_row(pictures, monkeypatch, workers):
    whole = list(decoded(pictures))
    monkeypatch.setattr(decoding, "PART", BATCH - 1)
    in_parts = decoded(pictures, workers)
    assert all(torch.equal(in_parts[number], whole[number]) for number in (1, 2, 0, 3))


def test_batches_are_read_from_anywhere(pictures):
    from_the_front = list(decoded(pictures))
    batches = decoded(pictures, workers=1)
    for number in (3, 4, 1, 2):
        assert torch.equal(batches[number], from_the_front[number])
    with pytest.raises(IndexError):
        batches[BATCHES]


class Unreadable:
    def __getitem__(self, number: int):
        raise DataError(f"picture {number} cannot be read.")


class Deadly:
    def __getitem__(self, number: int):
        os._exit(1)


@pytest.mark.parametrize("workers", [0, 1])
def test_what_cannot_be_read_is_said_in_one_line(workers):
    with pytest.raises(DataError, match=r"^picture \d+ cannot be read\.$"):
        decoded(Unreadable(), workers)[0]


def test_a_worker_that_dies_is_said_in_one_line():
    with pytest.raises(MachineError, match="^decoding pictures failed .*DataLoader worker.*$"):
        decoded(Deadly(), 1)[0]


class Grouped:
    def __getitem__(self, number: int):
        raise DataError("a group of its own" if os.getpgrp() == os.getpid() else "the group of what trains")


def test_a_signal_to_the_group_of_what_trains_does_not_end_its_workers():
    """torchrun and clusters send SIGTERM so: a run could not save any more if it missed a picture."""
    with pytest.raises(DataError, match="^a group of its own$"):
        decoded(Grouped(), 1)[0]


# ---- tests ----------------------------------------------------------------------------------------


def test_ten_crops_are_those_of_torchvision():
    squares = torch.rand(2, 3, 32, 32, generator=generator(0, "squares"))
    ours = ten_crops(squares, SIDE)
    assert ours.shape == (2, 10, 3, SIDE, SIDE)
    theirs = torch.stack(ten_crop(squares, SIDE), dim=1)
    for picture in range(2):
        there = {crop.numpy().tobytes() for crop in theirs[picture].contiguous()}
        assert {crop.numpy().tobytes() for crop in ours[picture].contiguous()} == there and len(there) == 10
    assert torch.equal(one_crop(squares, SIDE)[:, 0], ours[:, 4])


def test_a_whole_picture_keeps_its_shape():
    picture = torch.randint(256, (3, 60, 91), generator=generator(0, "picture"), dtype=torch.uint8)
    assert torch.equal(Whole(0, 60).cut(picture, SIDE), picture)
    upright = Whole(0, 90).cut(picture.mT, SIDE)
    assert upright.shape == (3, 136, 90)
    assert torch.equal(upright, F.interpolate(picture.mT[None], (136, 90), mode="bilinear", antialias=True)[0])


def test_pictures_of_one_shape_are_put_together_up_to_a_number_of_pixels():
    shapes = [(2, 3), (3, 2), (2, 3), (2, 3), (5, 5), (2, 3)]
    pictures = [torch.full((1, 3, *shape), float(number)) for number, shape in enumerate(shapes)]
    batches = list(of_one_shape(iter(pictures), pixels=18))
    assert [places for places, _ in batches] == [[0, 2, 3], [5], [1], [4]]
    for places, batch in batches:
        assert torch.equal(batch, torch.cat([pictures[place] for place in places]))


# ---- colours --------------------------------------------------------------------------------------


def test_colours_are_the_mean_and_the_components_of_the_pixels(pictures, monkeypatch):
    monkeypatch.setattr(colours, "LOOKED_AT", 60)  # every other one of 120
    found = colours_of(pictures, 32, workers=0)
    squares = torch.stack([centre(number, 32).cut(pictures[number], 32) for number in range(0, 120, 2)])
    pixels = squares.double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(found.mean, pixels.mean(1).float())
    covariance = (pixels / 255).cov(correction=0)
    axes = found.axes.double() / 255
    variances = axes.norm(dim=1)
    directions = axes / variances[:, None]
    torch.testing.assert_close(directions @ covariance @ directions.T, variances.diag(), rtol=1e-4, atol=1e-6)
    assert variances.sum() == pytest.approx(covariance.trace().item(), rel=1e-5)


# ---- how training sees them ------------------------------------------------------------------------


def test_views_are_drawn_evenly_and_from_their_generator_alone():
    views = draw_views(20_000, (256, 480), generator(0, "views"))
    assert (views.shorter.min(), views.shorter.max()) == (256, 480)
    assert views.shorter.float().mean() == pytest.approx(368, abs=2)
    assert views.place.min() >= 0 and views.place.max() < 1 and views.place.mean() == pytest.approx(0.5, abs=0.01)
    assert views.mirrored.float().mean() == pytest.approx(0.5, abs=0.02)
    assert views.light.std() == pytest.approx(0.1, rel=0.02)  # Krizhevsky et al., Sec. 4.1
    again = draw_views(20_000, (256, 480), generator(0, "views"))
    assert all(torch.equal(*pair) for pair in zip(vars(views).values(), vars(again).values(), strict=True))
    (crop,) = views[torch.tensor([7])].crops(torch.tensor([3]))
    assert crop == Crop(3, views.shorter[7].item(), *views.place[7].tolist())


def test_an_input_lacks_the_mean_and_is_mirrored_and_moved_along_the_axes(pictures):
    known = colours_of(pictures, 32, workers=0)
    pixels = torch.stack([centre(number, 32).cut(pictures[number], 32) for number in (5, 50)])
    views = draw_views(2, (32, 60), generator(0, "views"))
    views = Views(views.shorter, views.place, torch.tensor([True, False]), views.light)
    seen, plain = as_input(pixels, known, views), as_input(pixels, known)
    for number in (0, 1):
        centred = pixels[number].float() - known.mean[:, None, None]
        assert torch.equal(plain[number], centred)
        moved = sum(alpha * axis for alpha, axis in zip(views.light[number], known.axes, strict=True))
        expected = (centred.flip(2) if number == 0 else centred) + moved[:, None, None]
        torch.testing.assert_close(seen[number], expected)
