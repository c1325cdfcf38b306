"""CIFAR-10: its binary files, what is refused, and the stand-in."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from common.base.errors import DataError
from common.data import cifar10
from common.data.cifar10 import load, read_batch
from common.data.passports import LocatedData, find_passport
from tests.real_data import real_data

STAND_IN = LocatedData("cifar10", "stand-in", None, {})
RECORD = 3073  # bytes


def records(count: int, seed: int = 0) -> np.ndarray:
    """(count, RECORD) bytes: labels, then pictures."""
    draw = np.random.default_rng(seed)
    return np.concatenate(
        [draw.integers(10, size=(count, 1)), draw.integers(256, size=(count, RECORD - 1))], axis=1
    ).astype(np.uint8)


def test_a_record_is_a_label_and_three_planes_row_by_row(tmp_path):
    written = records(4)
    (tmp_path / "some.bin").write_bytes(written.tobytes())
    images, labels = read_batch(tmp_path / "some.bin", pictures=4)
    assert (images.shape, images.dtype, labels.dtype) == ((4, 3, 32, 32), torch.uint8, torch.int64)
    assert labels.tolist() == written[:, 0].tolist()
    for picture, channel, row, column in [(0, 0, 0, 0), (1, 1, 2, 3), (3, 2, 31, 31), (2, 0, 31, 0)]:
        byte = written[picture, 1 + 1024 * channel + 32 * row + column]
        assert images[picture, channel, row, column] == byte


def test_files_are_read_in_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10.read_batch, "__defaults__", (3,))
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for number, name in enumerate([f"data_batch_{k}.bin" for k in (1, 2, 3, 4, 5)] + ["test_batch.bin"]):
        (folder / name).write_bytes(records(3, seed=number).tobytes())
    found = load(LocatedData("cifar10", "official", tmp_path, {}))
    for part, seeds in ((found.train_labels, range(5)), (found.test_labels, [5])):
        assert part.tolist() == [label for seed in seeds for label in records(3, seed)[:, 0].tolist()]
    assert found.train_images.shape == (15, 3, 32, 32) and found.test_images.shape == (3, 3, 32, 32)
    assert found.train_images[14].flatten().tolist() == records(3, seed=4)[2, 1:].tolist()


@pytest.mark.parametrize("size", [0, RECORD - 1, RECORD + 1, 3 * RECORD])
def test_a_file_of_another_size_is_refused(tmp_path, size):
    file = tmp_path / "data_batch_1.bin"
    file.write_bytes(bytes(size))
    with pytest.raises(DataError, match=f"data_batch_1.bin holds {size:,} bytes instead of 6,146"):
        read_batch(file, pictures=2)


def test_the_size_of_an_official_file_is_that_of_10_000_records(tmp_path):
    (tmp_path / "test_batch.bin").write_bytes(bytes(RECORD))
    with pytest.raises(DataError, match="instead of 30,730,000"):
        read_batch(tmp_path / "test_batch.bin")


def test_a_label_beyond_9_is_refused(tmp_path):
    written = records(2)
    written[1, 0] = 10
    (tmp_path / "test_batch.bin").write_bytes(written.tobytes())
    with pytest.raises(DataError, match="test_batch.bin holds the label 10; the largest allowed is 9"):
        read_batch(tmp_path / "test_batch.bin", pictures=2)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match="test_batch.bin: No such file"):
        read_batch(tmp_path / "test_batch.bin")


def test_the_split_hash_depends_on_the_order_and_on_what_tests():
    found = load(STAND_IN)
    hashes = {found.split_hash(), load(STAND_IN).split_hash()}
    assert len(hashes) == 1
    turned = cifar10.Cifar10(found.train_images, found.train_labels.flip(0), found.test_images, found.test_labels)
    swapped = cifar10.Cifar10(found.test_images, found.test_labels, found.train_images, found.train_labels)
    assert len(hashes | {turned.split_hash(), swapped.split_hash()}) == 3


def test_the_stand_in_has_ten_classes_of_real_pictures_always_the_same():
    found, again = load(STAND_IN), load(STAND_IN)
    assert found.train_images.shape == (640, 3, 32, 32) and found.test_images.shape == (160, 3, 32, 32)
    assert found.train_images.dtype == torch.uint8 and found.train_labels.dtype == torch.int64
    assert found.train_labels.bincount().tolist() == [64] * 10 and found.test_labels.bincount().tolist() == [16] * 10
    assert torch.equal(found.train_images, again.train_images) and torch.equal(found.test_images, again.test_images)
    assert found.train_images.float().std() > 30  # no blank pictures


def test_stand_in_test_pictures_share_no_pixel_with_training_pictures(monkeypatch):
    """With photographs in which every pixel is its own colour."""
    numbers = np.arange(96 * 160)
    colours = np.stack([numbers % 256, numbers // 256, np.zeros_like(numbers)]).astype(np.uint8).reshape(3, 96, 160)
    monkeypatch.setattr(cifar10, "_photograph", lambda name: colours)
    found = load(STAND_IN)
    pixels = [
        {tuple(pixel) for pixel in images.permute(0, 2, 3, 1).reshape(-1, 3).unique(dim=0).tolist()}
        for images in (found.train_images, found.test_images)
    ]
    assert len(pixels[0]) > 5_000 and len(pixels[1]) > 2_500
    assert not pixels[0] & pixels[1]


def test_the_classes_of_the_stand_in_can_be_told_apart():
    found = load(STAND_IN)
    pixels = [images.flatten(1).numpy() for images in (found.train_images, found.test_images)]
    nearest = KNeighborsClassifier(1).fit(pixels[0], found.train_labels.numpy())
    assert nearest.score(pixels[1], found.test_labels.numpy()) > 0.5


def test_the_real_data_has_the_moments_that_everybody_normalises_by():
    found = load(real_data(find_passport("cifar10")))
    assert (
        found.train_labels.bincount().tolist() == [5000] * 10 and found.test_labels.bincount().tolist() == [1000] * 10
    )
    pixels = found.train_images.double() / 255
    torch.testing.assert_close(
        pixels.mean((0, 2, 3)), torch.tensor([0.4914, 0.4822, 0.4465]).double(), rtol=0, atol=5e-5
    )
    torch.testing.assert_close(
        pixels.std((0, 2, 3)), torch.tensor([0.2470, 0.2435, 0.2616]).double(), rtol=0, atol=5e-5
    )


def test_both_editions_have_the_same_training_files():
    editions = find_passport("cifar10").editions
    assert editions["official"].equivalent and editions["rebuilt"].equivalent
    parts = [{name: file.sha256 for name, file in editions[e].files.items() if "data_batch" in name} for e in editions]
    assert parts[0] == parts[1] and len(parts[0]) == 5 and all(parts[0].values())
