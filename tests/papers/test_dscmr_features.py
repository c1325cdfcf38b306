"""features.py: pictures and texts to .mat files that data.py reads, on made-up pairs and random weights."""

import math
import socket
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from common.base.errors import DataAbsent, DataError, MachineError
from common.data.passports import LocatedData
from common.training.determinism import generator
from papers.dscmr import data, features
from papers.dscmr.features import SentenceCNN, as_numbers, find_pairs, text_features, vocabulary_of, words

TEXTS = {"cat": "a small cat sleeps on the sofa", "dog": "the big dog runs, and it's barking"}


@pytest.fixture
def pairs(tmp_path):
    """Two classes; pictures of one colour each."""
    for part, count in (("train", 4), ("test", 2)):
        for label, (name, text) in enumerate(TEXTS.items()):
            folder = tmp_path / "pairs" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (40, 30), (200 * label, 30 * number, 90)).save(folder / f"{number}.jpg")
                (folder / f"{number}.txt").write_text(f"{text} {number} times")
    return tmp_path / "pairs"


@pytest.fixture(scope="module")
def random_vgg19():
    """VGG-19 with random weights in place of those that must be downloaded."""
    from torchvision.models import vgg19

    with torch.device("meta"):
        model = vgg19()
    draw = generator(0, "random VGG-19")
    state = {name: torch.empty(p.shape).uniform_(-0.02, 0.02, generator=draw) for name, p in model.named_parameters()}
    model.load_state_dict(state, assign=True)
    return model


def test_fc7_is_the_second_fully_connected_layer_after_its_relu(pairs, random_vgg19):
    files = find_pairs(pairs)["test"].pictures
    found = features.fc7(random_vgg19, files)
    assert found.shape == (4, 4096) and (found >= 0).all() and (found == 0).any()
    seen = {}
    hook = random_vgg19.classifier[3].register_forward_hook(lambda _, __, output: seen.update(fc7=output))
    with torch.no_grad():
        again = features.fc7(random_vgg19, files[:1])
    hook.remove()
    torch.testing.assert_close(again, seen["fc7"].clamp(min=0))
    torch.testing.assert_close(again, found[:1], msg="a picture's features do not depend on its neighbours")


def test_words():
    assert words("The dog's bark, 3 TIMES! - 'twas") == ["the", "dog's", "bark", "3", "times", "twas"]
    assert vocabulary_of(["b a", "c a"]) == {"b": 2, "a": 3, "c": 4}
    assert as_numbers(["a b", "x"], {"a": 2, "b": 3}).tolist() == [
        [0, 0, 0, 0, 2, 3, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 0, 0, 0, 0, 0],
    ]


def test_sentence_features_against_a_plain_loop():
    model = SentenceCNN(vocabulary=9, classes=2).double()
    sentence = torch.tensor([[0, 3, 5, 2, 8, 1, 4]])
    found = model.features(sentence)[0]
    assert found.shape == (300,)
    vectors = model.vectors.weight[sentence[0]]
    for group, convolution in enumerate(model.convolutions):
        width = convolution.weight.shape[2]
        for number in (0, 57, 99):
            values = [
                (convolution.weight[number] * vectors[at : at + width].T).sum() + convolution.bias[number]
                for at in range(len(vectors) - width + 1)
            ]
            assert found[100 * group + number].item() == pytest.approx(max(0.0, max(values).item()))


def test_kims_sizes():
    model = SentenceCNN(vocabulary=1000, classes=20)
    assert [tuple(c.weight.shape) for c in model.convolutions] == [(100, 300, 3), (100, 300, 4), (100, 300, 5)]
    assert model.output.weight.shape == (20, 300)
    assert (features.DROPOUT, features.LARGEST_NORM, features.TEXT_BATCH) == (0.5, 3.0, 50)


def test_the_sentence_cnn_learns_and_is_the_same_again(pairs, monkeypatch):
    monkeypatch.setattr(features, "EPOCHS", 8)
    found = find_pairs(pairs)
    first, again, other = (text_features(found, seed) for seed in (0, 0, 1))
    assert first["train"].shape == (8, 300) and first["test"].shape == (4, 300)
    assert all(torch.equal(first[part], again[part]) for part in first)
    assert not torch.equal(first["test"], other["test"])
    # The classes are learned: a test text is nearest to a training text of its own.
    nearest = torch.cdist(first["test"], first["train"]).argmin(dim=1)
    assert [found["train"].labels[n] for n in nearest] == found["test"].labels


def test_training_keeps_kims_bound_and_the_padding_at_zero(monkeypatch):
    monkeypatch.setattr(features, "EPOCHS", 3)
    monkeypatch.setattr(features, "LARGEST_NORM", 0.2)
    sentences, labels = torch.randint(1, 9, (20, 8), generator=generator(0, "words")), torch.arange(20) % 2
    model = features.train_sentence_cnn(sentences, labels, 9, 0)
    assert model.output.weight.norm(dim=1).max() <= 0.2 + 1e-6
    assert not model.vectors.weight[0].any()
    start = SentenceCNN(9, 2)
    features._initialise(start, generator(0, "sentence CNN"))
    assert start.vectors.weight.abs().max() <= 0.25
    assert start.convolutions[2].weight.abs().max() <= 1 / math.sqrt(1500)


def run(monkeypatch, *words) -> int:
    monkeypatch.setattr(sys, "argv", ["features", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        features.main()
    return left.value.code or 0


def test_the_command_writes_what_data_py_reads(tmp_path, pairs, random_vgg19, monkeypatch):
    monkeypatch.setattr(features, "EPOCHS", 1)
    monkeypatch.setattr(features, "pretrained_vgg19", lambda: random_vgg19)
    (pairs / "test").rename(pairs / "val")
    (pairs / "test").mkdir()
    for name in TEXTS:
        (pairs / "train" / name).joinpath("0.jpg").rename(pairs / "train" / name / "0.png")
        (pairs / "test" / name).mkdir()
        for end in (".jpg", ".txt"):
            (pairs / "val" / name / f"1{end}").rename(pairs / "test" / name / f"1{end}")
    assert run(monkeypatch, pairs, tmp_path / "own") == 0
    files = dict.fromkeys((f"own/{file.name}" for file in (tmp_path / "own").iterdir()), "")
    monkeypatch.setattr(data, "find_passport", lambda *_: type("Passport", (), {"splits": {"test": 2}}))
    read = data.load(LocatedData("pascal_sentence", "own", tmp_path, files))
    assert [len(part) for part in (read.train, read.validation, read.test)] == [8, 2, 2]
    assert read.train.images.shape == (8, 4096) and read.test.texts.shape == (2, 300)
    assert read.train.labels.tolist() == [0] * 4 + [1] * 4 and read.test.labels.tolist() == [0, 1]
    expected = features.fc7(random_vgg19, [pairs / "test" / "dog" / "1.jpg"])
    torch.testing.assert_close(read.test.images[1:], expected)


# ---- what can go wrong -------------------------------------------------------------


def without(part):
    return lambda pairs: (pairs / part).rename(pairs / "elsewhere")


def another_class(pairs):
    (pairs / "test" / "cow").mkdir()


def no_text(pairs):
    (pairs / "train" / "cat" / "0.txt").unlink()


def binary_text(pairs):
    (pairs / "train" / "cat" / "0.txt").write_bytes(b"\xff\xfe\xff")


def no_words(pairs):
    (pairs / "train" / "cat" / "0.txt").write_text(" ... ")


def no_pictures(pairs):
    for file in (pairs / "test" / "dog").glob("*.jpg"):
        file.unlink()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (without("train"), "no such folder, or no classes in it"),
        (without("test"), "no such folder, or no classes in it"),
        (another_class, r"train and test have different classes \(cow\)"),
        (no_text, "0.txt: No such file"),
        (binary_text, "is not UTF-8 text"),
        (no_words, "holds no words"),
        (no_pictures, "dog: no pictures"),
    ],
)
def test_a_folder_that_is_not_in_order_is_told(pairs, damage, told):
    damage(pairs)
    with pytest.raises(DataError, match=told) as error:
        find_pairs(pairs)
    assert "\n" not in str(error.value)


def test_what_macos_and_windows_put_beside_pictures_is_no_picture(pairs):
    before = find_pairs(pairs)
    (pairs / "train" / ".ipynb_checkpoints").mkdir()
    for name in ("._0.jpg", ".DS_Store", "Thumbs.db"):
        (pairs / "train" / "cat" / name).write_bytes(b"no picture")
    assert find_pairs(pairs) == before


def test_a_file_that_is_no_picture_is_told(pairs, random_vgg19):
    file = pairs / "train" / "cat" / "0.jpg"
    file.write_bytes(b"no picture")
    with pytest.raises(DataError, match="0.jpg cannot be read as a picture"):
        features.fc7(random_vgg19, [file])


def test_offline_it_says_where_the_weights_belong_and_exits_with_3(tmp_path, pairs, monkeypatch, capsys):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))

    def refuse(*_, **__):
        assert socket.getdefaulttimeout() == features.TIMEOUT_S
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    assert run(monkeypatch, pairs, tmp_path / "own") == DataAbsent.code == 3
    told = capsys.readouterr().err
    assert "VGG-19's weights cannot be fetched" in told and "vgg19-dcbb9e9d.pth" in told and str(tmp_path) in told
    assert "Traceback" not in told and not (tmp_path / "own").exists()
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize("content", [b"", b"no weights", None])
def test_damaged_weights_in_the_cache_are_told(tmp_path, monkeypatch, content):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / "vgg19-dcbb9e9d.pth"
    file.parent.mkdir(parents=True)
    if content is None:
        torch.save({"features.0.weight": torch.zeros(3)}, file)
    else:
        file.write_bytes(content)
    with pytest.raises(DataError, match="does not hold VGG-19's weights") as error:
        features.pretrained_vgg19()
    assert not isinstance(error.value, DataAbsent)


def test_a_folder_that_cannot_be_written_is_told_before_the_work(tmp_path, pairs, monkeypatch, capsys):
    (tmp_path / "own").write_text("in the way")
    monkeypatch.setattr(features, "pretrained_vgg19", lambda: None)  # which would not get far
    assert run(monkeypatch, pairs, tmp_path / "own") == MachineError.code == 5
    assert f"{tmp_path / 'own'}: " in capsys.readouterr().err
    with pytest.raises(MachineError, match="own"):
        features.write_authors_layout(tmp_path / "own", "train", torch.zeros(1, 2), torch.zeros(1, 2), [0])


def test_labels_are_written_as_the_authors_have_them(tmp_path):
    from scipy.io import loadmat

    features.write_authors_layout(tmp_path, "train", torch.ones(2, 3), torch.ones(2, 4), [0, 5])
    labels = loadmat(tmp_path / "train_img_lab.mat")["train_img_lab"]
    assert labels.shape == (2, 1) and labels.dtype == np.int64 and labels[:, 0].tolist() == [0, 5]
