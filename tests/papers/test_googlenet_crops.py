"""The crops of GoogLeNet's testing, on pictures whose pixels hold their own coordinates."""

import pytest
import torch
from torch import Tensor, nn

from common.training.determinism import generator
from papers.googlenet.crops import PROTOCOLS, CropsOf, crops_of, cut_crops, predict, resized_shape

ONE, TEN, ALL = (PROTOCOLS[count] for count in (1, 10, 144))


def coordinates(height: int, width: int) -> Tensor:
    """(3, height, width), float: the row, the column, and which picture, as good as none other."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns, torch.full_like(rows, 7)]).float()


@pytest.mark.parametrize("count", PROTOCOLS)
@pytest.mark.parametrize("shape", [(375, 500), (500, 375), (300, 300)])
def test_as_many_crops_as_the_protocol_says(count, shape):
    crops = crops_of(*shape, 224, PROTOCOLS[count])
    assert len(crops) == len(PROTOCOLS[count]) == count


@pytest.mark.parametrize("shape", [(375, 500), (500, 375), (257, 256 * 2)])
@pytest.mark.parametrize("side", [224, 112, 96])
def test_the_144_crops_are_144_different_ones(shape, side):
    assert len(set(crops_of(*shape, side, ALL))) == 144


def test_the_squares_of_a_square_picture_coincide():
    """They are counted three times each, as the paper's average has them."""
    assert len(crops_of(300, 300, 224, ALL)) == 144 and len(set(crops_of(300, 300, 224, ALL))) == 48


@pytest.mark.parametrize("shape", [(375, 500), (500, 375), (300, 300), (128, 662), (640, 129)])
@pytest.mark.parametrize("side", [224, 112, 96, 80])
def test_every_crop_lies_within_its_resized_picture(shape, side):
    for crop in crops_of(*shape, side, ALL):
        rows, columns = resized_shape(*shape, crop.scale)
        assert min(rows, columns) == crop.scale
        assert 0 <= crop.top <= rows - crop.size and 0 <= crop.left <= columns - crop.size


def test_scales_are_the_papers_and_shrink_with_the_network():
    scales = {side: sorted({crop.scale for crop in crops_of(400, 500, side, ALL)}) for side in (224, 112, 96)}
    assert scales == {224: [256, 288, 320, 352], 112: [128, 144, 160, 176], 96: [110, 123, 137, 151]}


@pytest.mark.parametrize(("shape", "offsets"), [((320, 480), [(0, 0), (0, 80), (0, 160)]),
                                                ((480, 320), [(0, 0), (80, 0), (160, 0)])])  # fmt: skip
def test_squares_are_left_centre_right_or_top_centre_bottom(shape, offsets):
    squares = [crop for crop in crops_of(*shape, 224, ALL) if crop.scale == crop.size == 320 and not crop.mirrored]
    assert [(crop.top, crop.left) for crop in squares] == offsets


def test_crops_of_a_square_are_its_corners_its_centre_and_itself():
    """Of the rightmost square at scale 256 of a picture of 256 x 400: rows 0 to 255, columns 144 to 399."""
    crops = crops_of(256, 400, 224, ALL)
    of_square = [(crop.top, crop.left, crop.size, crop.mirrored) for crop in crops[24:36]]
    places = [(0, 144, 224), (0, 176, 224), (32, 144, 224), (32, 176, 224), (16, 160, 224), (0, 144, 256)]
    assert of_square == [(*place, mirrored) for place in places for mirrored in (False, True)]


def test_pixels_of_a_crop_are_those_of_its_place():
    """At scale 256 a picture of 256 x 400 is not resized: every pixel still holds where it was."""
    picture = coordinates(256, 400)
    crops, cut = crops_of(256, 400, 224, ALL), cut_crops(picture, 224, ALL)
    assert cut.shape == (144, 3, 224, 224)
    checked = 0
    for crop, part in zip(crops, cut, strict=True):
        if crop.scale == 256 and crop.size == 224:
            rows = torch.arange(crop.top, crop.top + 224).float()
            columns = torch.arange(crop.left, crop.left + 224).float()
            columns = columns.flip(0) if crop.mirrored else columns
            assert torch.equal(part[0], rows[:, None].expand(224, 224))
            assert torch.equal(part[1], columns.expand(224, 224))
            checked += 1
    assert checked == 30


@pytest.mark.parametrize("shape", [(256, 400), (375, 250)])
def test_pixels_of_resized_crops_are_those_of_their_place(shape):
    """Pixel i of n comes from (i + 1/2) * length / n - 1/2, to the tenth that a sampled kernel may be off."""
    picture = coordinates(*shape)
    crops, cut = crops_of(*shape, 224, ALL), cut_crops(picture, 224, ALL)
    inner = slice(8, -8)  # where no crop sees how the picture ends
    for crop, part in zip(crops, cut, strict=True):
        step = crop.size / 224
        within = (torch.arange(224) + 0.5) * step  # in the resized picture, from the crop's begin
        for axis, begin, length in ((0, crop.top, shape[0]), (1, crop.left, shape[1])):
            resized = resized_shape(*shape, crop.scale)[axis]
            expected = (begin + within) * length / resized - 0.5
            expected = expected.flip(0) if axis == 1 and crop.mirrored else expected
            seen = part[0][:, 100] if axis == 0 else part[1][100]
            torch.testing.assert_close(seen[inner], expected[inner], rtol=0, atol=0.1)
        assert (part[2] - 7).abs().max() < 1e-4


def test_one_crop_is_the_centre_and_the_first_of_neither_corner():
    crop = crops_of(300, 256, 224, ONE)
    assert [(c.scale, c.top, c.left, c.size, c.mirrored) for c in crop] == [(256, 38, 16, 224, False)]


def test_ten_crops_are_those_of_the_centre_square():
    """Of 256 x 400: columns 72 to 327."""
    crops = [(c.top, c.left) for c in crops_of(256, 400, 224, TEN) if not c.mirrored]
    assert crops == [(0, 72), (0, 104), (32, 72), (32, 104), (16, 88)]
    assert set(crops_of(256, 400, 224, TEN)) < set(crops_of(256, 400, 224, ALL))


def test_the_crops_of_a_picture_to_be_decoded_are_those_of_one_in_memory():
    picture = random_pictures(1)[0]
    for count, protocol in PROTOCOLS.items():
        assert torch.equal(CropsOf(0, count).cut(picture, 28), cut_crops(picture, 28, protocol))


# ---- averaging ----------------------------------------------------------------------------


class Probe(nn.Module):
    """Three logits from the means of the colours; remembers how many crops came at once."""

    def __init__(self, seed: int):
        super().__init__()
        self.mix = torch.randn(3, 3, generator=generator(seed, "probe"))
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        return x.mean(dim=(2, 3)) @ self.mix


def random_pictures(count: int) -> list[Tensor]:
    """Of different sizes."""
    draw = generator(0, "pictures")
    return [torch.randint(256, (3, 40 + 5 * n, 70 - 4 * n), dtype=torch.uint8, generator=draw) for n in range(count)]


def prepare(crops: Tensor) -> Tensor:
    return crops.float() / 64 - 2


@pytest.mark.parametrize("count", PROTOCOLS)
@pytest.mark.parametrize("at_once", [1, 7, 1000])
def test_softmax_is_averaged_over_crops_and_networks(count, at_once):
    networks, pictures = [Probe(0), Probe(1)], random_pictures(3)
    found = predict(networks, pictures, 28, PROTOCOLS[count], prepare, at_once)
    for picture, probabilities in zip(pictures, found, strict=True):
        crops = prepare(cut_crops(picture, 28, PROTOCOLS[count]))
        expected = torch.stack([network(crops).softmax(dim=1) for network in networks]).mean(dim=(0, 1))
        torch.testing.assert_close(probabilities, expected.double())
    torch.testing.assert_close(found.sum(dim=1), torch.ones(3, dtype=torch.float64))


def test_no_more_crops_at_once_than_asked_for():
    network = Probe(0)
    predict([network], random_pictures(3), 28, ALL, prepare, at_once=50)
    assert network.seen == [50] * 8 + [32]


def test_crops_of_several_pictures_share_a_batch():
    network = Probe(0)
    predict([network], random_pictures(5), 28, ONE, prepare, at_once=4)
    assert network.seen == [4, 1]


@pytest.mark.parametrize("count", PROTOCOLS)
def test_every_picture_is_counted_as_it_is_finished(count):
    steps: list[int] = []
    predict([Probe(0)], random_pictures(5), 28, PROTOCOLS[count], prepare, 32, steps.append)
    assert sum(steps) == 5 and min(steps) >= 0
