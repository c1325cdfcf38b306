"""ImageNet on the disk, as small trees of the stand-in's pictures; its passport counts them."""

import io
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from common.base.errors import DataAbsent, DataError
from common.data.imagenet import TEST, TRAIN, load
from common.data.passports import LocatedData, Passport, Tree, find_passport, locate

STAND_IN = LocatedData("imagenet", "stand-in", None, {})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The stand-in as a tree."""
    root, pictures = tmp_path_factory.mktemp("imagenet"), load(STAND_IN)
    for name, part in ((TRAIN, pictures.train), (TEST, pictures.test)):
        for file, content in zip(part.names, part.pictures.files, strict=True):
            (root / name / file).parent.mkdir(parents=True, exist_ok=True)
            (root / name / f"{file}.JPEG").write_bytes(content)
    return root


@pytest.fixture
def tree(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "imagenet")


def at(folder) -> LocatedData:
    return LocatedData("imagenet", "official", folder, {})


def test_the_stand_in_has_pictures_of_ten_classes_that_do_not_repeat():
    pictures = load(STAND_IN)
    assert (len(pictures.train), len(pictures.test), pictures.classes) == (120, 40, 10)
    assert pictures.train.labels.tolist() == sorted(list(range(10)) * 12)
    assert len({bytes(file) for part in (pictures.train, pictures.test) for file in part.pictures.files}) == 160
    shapes = {pictures.train.pictures[number].shape for number in range(120)}
    assert len(shapes) > 5 and all(shape[0] == 3 for shape in shapes)


def test_a_tree_is_read_as_its_names_are_sorted(tree):
    (tree / TRAIN / "coffee" / "Thumbs.db").write_text("not a picture")
    (tree / TRAIN / ".hidden").mkdir()
    found, stand_in = load(at(tree)), load(STAND_IN)
    assert list(found.test.names) == sorted(f"{name}.JPEG" for name in stand_in.test.names) and found.classes == 10
    for number, name in enumerate(found.test.names):
        there = list(stand_in.test.names).index(name.removesuffix(".JPEG"))
        assert torch.equal(found.test.pictures[number], stand_in.test.pictures[there])
        assert found.test.labels[number] == stand_in.test.labels[there]
    assert len(found.train) == 120 and found.split_hash() != stand_in.split_hash()


def test_parts_with_different_classes_are_refused(tree):
    (tree / TEST / "coffee").rename(tree / TEST / "tea")
    with pytest.raises(DataError, match="train/ and val/ have different classes"):
        load(at(tree))


def save(picture: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def test_a_png_grey_and_four_coloured_ones_are_read_in_colour(tree):
    """ImageNet has a few of each, all of them called JPEG."""
    pixels = np.random.default_rng(0).integers(256, size=(8, 9, 3), dtype=np.uint8)
    colour, folder = Image.fromarray(pixels), tree / TEST / "astronaut"
    (folder / "0.JPEG").write_bytes(save(colour, "PNG"))
    (folder / "1.JPEG").write_bytes(save(colour.convert("L"), "JPEG"))
    (folder / "2.JPEG").write_bytes(save(colour.convert("CMYK"), "JPEG"))
    (folder / "3.JPEG").write_bytes(b"no picture")
    pictures = load(at(tree)).test.pictures
    assert np.array_equal(pictures[0].permute(1, 2, 0).numpy(), pixels)
    assert pictures[1].shape == (3, 8, 9) and torch.equal(pictures[1][0], pictures[1][2])
    expected = np.array(Image.open(folder / "2.JPEG").convert("RGB"))
    assert np.abs(pictures[2].permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1
    with pytest.raises(DataError, match=r"astronaut/3\.JPEG cannot be read as a picture"):
        pictures[3]


# ---- the passport ---------------------------------------------------------------------------------


@pytest.fixture
def passport() -> Passport:
    """ImageNet's, for a tree of the stand-in's size."""
    full = find_passport("imagenet")
    trees = {TRAIN: Tree(classes=10, files=120), TEST: Tree(classes=10, files=40)}
    official = full.editions["official"].model_copy(update={"trees": trees})
    return full.model_copy(update={"editions": {"official": official}})


def test_the_passport_has_the_published_numbers():
    passport = find_passport("imagenet")
    trees = passport.editions["official"].trees
    assert trees == {TRAIN: Tree(classes=1000, files=1_281_167), TEST: Tree(classes=1000, files=50_000)}
    assert passport.splits == {"train": 1_281_167, "test": 50_000} and passport.counts("official")


def test_a_copy_is_known_by_its_numbers_and_its_names_are_recorded(passport, tree):
    before = locate(passport, tree.parent)
    assert (before.edition, before.folder, set(before.files)) == ("official", tree, {TRAIN, TEST})
    (tree / TEST / "coffee" / "0.JPEG").rename(tree / TEST / "coffee" / "9.JPEG")
    after = locate(passport, tree.parent)
    assert after.files[TRAIN] == before.files[TRAIN] and after.files[TEST] != before.files[TEST]


def test_a_copy_that_lacks_something_is_no_copy(passport, tree):
    (tree / TRAIN / "coffee" / "0.JPEG").unlink()
    with pytest.raises(DataError, match="train holds 119 files in 10 folders instead of 120 in 10"):
        locate(passport, tree.parent)
    shutil.rmtree(tree / TRAIN)
    with pytest.raises(DataAbsent, match=r"train is missing \(120 files in 10 folders\)"):
        locate(passport, tree.parent)
