"""Pictures of an ImageFolder layout, decoded into memory; the flower photographs and their split."""

import io
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from common.base.errors import DataError
from common.data import flowers
from common.data.image_folder import read_image_folder, read_picture, share_of_each_class
from common.data.passports import LocatedData, find_passport, folder_digest
from common.data.splits import split_hash
from tests.real_data import real_data

STAND_IN = LocatedData("flowers", "stand-in", None, {})


def pixels(seed: int, height: int = 6, width: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Two classes, of two pictures and one."""
    for seed, name in enumerate(("roses/b.png", "roses/a.png", "daisy/c.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels(seed)).save(tmp_path / name)
    return tmp_path


def test_pictures_are_sorted_and_labelled_by_their_folders(folder):
    found = read_image_folder(folder)
    assert found.names == ("daisy/c.png", "roses/a.png", "roses/b.png")
    assert found.classes == ("daisy", "roses") and found.labels.tolist() == [0, 1, 1]
    for seed, picture in zip((2, 1, 0), found.pictures, strict=True):
        assert picture.dtype == torch.uint8 and picture.is_contiguous()
        assert np.array_equal(picture.permute(1, 2, 0).numpy(), pixels(seed))


def test_pictures_keep_their_own_sizes(folder):
    Image.fromarray(pixels(5, 20, 4)).save(folder / "roses" / "upright.png")
    assert [tuple(p.shape) for p in read_image_folder(folder).pictures] == [(3, 6, 9)] * 3 + [(3, 20, 4)]


def test_only_the_classes_asked_for_are_read(folder):
    (folder / "more").mkdir()
    assert read_image_folder(folder, ("roses",)).names == ("roses/a.png", "roses/b.png")


@pytest.mark.parametrize("stray", ["roses/Thumbs.db", "daisy/desktop.ini", "roses/.DS_Store", "readme.txt", ".git/x"])
def test_stray_files_are_passed_over(folder, stray):
    (folder / stray).parent.mkdir(exist_ok=True)
    (folder / stray).write_bytes(b"no picture")
    assert len(read_image_folder(folder).names) == 3


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_other_kinds_of_pictures_become_colour(tmp_path, mode):
    picture = Image.fromarray(pixels(0)).convert(mode)
    picture.save(tmp_path / "picture.tiff")
    read = read_picture(tmp_path / "picture.tiff")
    assert np.array_equal(read.permute(1, 2, 0).numpy(), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("content", [b"", b"no picture", b"\xff\xd8\xff\xe0 half a JPEG"])
def test_a_file_that_is_no_picture_is_named(folder, content):
    file = folder / "roses" / "d.jpg"
    file.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as a picture") as told:
        read_image_folder(folder)
    assert str(file) in str(told.value) and "\n" not in str(told.value)


def test_a_truncated_picture_is_named(folder):
    file = folder / "roses" / "a.png"
    Image.fromarray(pixels(0, 300, 300)).save(file)
    file.write_bytes(file.read_bytes()[:20_000])
    with pytest.raises(DataError, match="a.png cannot be read as a picture"):
        read_image_folder(folder)


def test_a_class_without_pictures_is_named(folder):
    (folder / "tulips").mkdir()
    with pytest.raises(DataError, match="tulips holds no pictures"):
        read_image_folder(folder)


def test_a_class_that_is_missing_is_named(folder):
    with pytest.raises(DataError, match="tulips: No such file or directory"):
        read_image_folder(folder, ("daisy", "tulips"))


def test_a_folder_without_classes_is_named(tmp_path):
    with pytest.raises(DataError, match="holds no folders; there must be one for each class"):
        read_image_folder(tmp_path)


# ---- splits --------------------------------------------------------------------------------


def test_a_share_is_taken_of_each_class():
    labels = torch.tensor([0] * 40 + [1] * 20 + [2] * 8)
    drawn = share_of_each_class(labels, 0.25, seed=0)
    assert labels[drawn].bincount().tolist() == [10, 5, 2]
    assert torch.equal(drawn, drawn.unique()) and not torch.equal(drawn[:10], torch.arange(10))


def test_every_picture_of_a_class_is_as_likely_to_be_drawn():
    labels = torch.tensor([0] * 8 + [1] * 8)
    counts = sum(torch.bincount(share_of_each_class(labels, 0.25, seed), minlength=16) for seed in range(1000))
    assert counts.sum() == 4000 and (counts - 250).abs().max() < 4 * (1000 * 0.25 * 0.75) ** 0.5


def test_the_draw_is_the_same_for_the_same_seed_only():
    labels = torch.zeros(100, dtype=torch.long)
    one, same, other = (share_of_each_class(labels, 0.5, seed) for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_the_split_of_the_flowers_is_complete_and_stratified():
    pictures = flowers.load(STAND_IN)
    whole, held_out = flowers.split(pictures), flowers.split(pictures, held_out=True)
    assert torch.equal(torch.cat([whole.train, whole.test]).sort().values, torch.arange(120))
    assert pictures.labels[whole.test].bincount().tolist() == [6] * 5
    # What is chosen with is a part of the training pictures alone.
    assert torch.equal(torch.cat([held_out.train, held_out.test]).sort().values, whole.train)
    assert pictures.labels[held_out.test].bincount().tolist() == [4] * 5


# ---- flowers ---------------------------------------------------------------------------------


def test_the_stand_in_is_five_photographs_in_pieces():
    pictures = flowers.load(STAND_IN)
    assert len(pictures.names) == len(set(pictures.names)) == 120
    assert pictures.classes == ("astronaut", "china", "coffee", "flower", "motorcycle_left")
    assert {min(picture.shape[1:]) for picture in pictures.pictures} == {flowers.SHORTER_SIDE}
    assert min(picture.float().std() for picture in pictures.pictures) > 1  # none of them is blank


def archive(path, names: dict[str, np.ndarray | bytes]) -> LocatedData:
    """A .tgz, its files in that order."""
    with tarfile.open(path / flowers.ARCHIVE, "w:gz") as file:
        for name, content in names.items():
            if isinstance(content, np.ndarray):
                stream = io.BytesIO()
                Image.fromarray(content).save(stream, "JPEG", quality=95)
                content = stream.getvalue()
            entry = tarfile.TarInfo(f"flower_photos/{name}")
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    return LocatedData("flowers", "official", path, {flowers.ARCHIVE: "0"})


def test_of_the_archive_the_first_of_each_class_by_name_are_resized(tmp_path, monkeypatch):
    monkeypatch.setattr(flowers, "OF_EACH_CLASS", 2)
    smooth = np.broadcast_to(np.linspace(0, 255, 320, dtype=np.uint8)[:, None], (240, 320, 3))
    names = [f"{name}/{file}.jpg" for name in flowers.CLASSES for file in ("c", "a", "b")]
    data = archive(tmp_path, {"LICENSE.txt": b"CC BY", **dict.fromkeys(names, smooth), "roses/a.txt": b"notes"})
    pictures = flowers.load(data)
    assert pictures.names == tuple(f"{name}/{file}.jpg" for name in flowers.CLASSES for file in "ab")
    assert pictures.classes == flowers.CLASSES
    for picture in pictures.pictures:
        assert picture.shape == (3, 128, 171)  # 320 * 128 / 240 = 170.67
        assert (picture[:, :, 85].float() - 127.5).abs().max() < 4  # the middle of a ramp


def test_a_damaged_archive_is_named(tmp_path):
    data = archive(tmp_path, {f"{name}/a.jpg": b"no picture" for name in flowers.CLASSES})
    with pytest.raises(DataError, match=r"flower_photos.tgz cannot be read .*Remove it and fetch it again"):
        flowers.load(data)
    whole = (tmp_path / flowers.ARCHIVE).read_bytes()
    (tmp_path / flowers.ARCHIVE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="flower_photos.tgz cannot be read"):
        flowers.load(data)


@pytest.fixture(scope="module")
def real() -> LocatedData:
    return real_data(find_passport("flowers"))


def test_the_flowers_are_those_of_their_passport(real):
    passport = find_passport("flowers")
    pictures = flowers.load(real)
    assert pictures.classes == flowers.CLASSES
    assert pictures.labels.bincount().tolist() == [flowers.OF_EACH_CLASS] * 5
    assert {min(picture.shape[1:]) for picture in pictures.pictures} == {flowers.SHORTER_SIDE}
    whole = flowers.split(pictures)
    assert {"train": len(whole.train), "test": len(whole.test)} == passport.splits
    if real.edition == "128-pixel":
        assert folder_digest(real.files) == passport.editions["128-pixel"].digest


def test_the_split_of_the_flowers_never_changes(real):
    """It is the same for every seed, every paper and every edition: the names of its pictures say so."""
    pictures = flowers.load(real)
    whole = flowers.split(pictures)
    train, test = ([pictures.names[number] for number in part.tolist()] for part in (whole.train, whole.test))
    assert split_hash(train=train, test=test).startswith("e72bb79ae9380a68")
