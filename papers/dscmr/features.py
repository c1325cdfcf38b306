"""Features as the paper has them: VGG-19 fc7 for pictures, a sentence CNN for texts.

    python -m papers.dscmr.features PAIRS OUT

PAIRS holds pictures in train/CLASS/NAME.jpg and test/CLASS/NAME.jpg (or .jpeg, .png), each with its
text beside it in NAME.txt; where there are validation pairs, they are in val/ in the same way. OUT
gets the six .mat files of the authors' layout, class by class in alphabetical order, validation
pairs before the test pairs in the test files; passports/ says where data.py looks for them.

Pictures: torchvision's VGG-19 with its ImageNet weights and its preparation of pictures, and the
4,096 outputs of the second fully connected layer after its ReLU. Texts: the network of Y. Kim,
"Convolutional Neural Networks for Sentence Classification", EMNLP 2014, in its variant CNN-rand,
trained on the training texts and their classes; the features are what it pools, 100 maps of each of
three widths: 300 numbers. Kim's details are from memory.
"""

import re
import socket
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F
from scipy.io import savemat
from torch import Tensor, nn

from common.base.errors import DAMAGED, DataAbsent, DataError, MachineError, UserError, memory_told
from common.base.files import require_writable
from common.base.progress import say
from common.data.passports import class_folders, visible_files
from common.training.determinism import generator, make_deterministic

PICTURES = (".jpg", ".jpeg", ".png")
PICTURE_BATCH = 16
TIMEOUT_S = 10  # of a server of VGG-19's weights

# Kim 2014, Section 3.1, but for the epochs: he stops early on held-out sentences, we after as many as
# his published code runs at most.
WIDTHS, MAPS, WORD_SIZE = (3, 4, 5), 100, 300
DROPOUT, LARGEST_NORM, TEXT_BATCH, EPOCHS = 0.5, 3.0, 50, 25
PADDING, UNKNOWN = 0, 1  # the first two words of every vocabulary


@dataclass(frozen=True)
class Found:
    """One part of a folder of pairs, class by class."""

    pictures: list[Path]
    texts: list[str]
    labels: list[int]


# ---- pairs -------------------------------------------------------------------------


def find_pairs(folder: Path) -> dict[str, Found]:
    """The pairs of `train`, `test` and, if it exists, `val`.

    Raises:
        DataError: a part is missing, the parts have different classes, a class is empty, or a
            picture has no readable text.
    """
    parts = [part for part in ("train", "val", "test") if part != "val" or (folder / part).exists()]
    classes = {part: _classes(folder / part) for part in parts}
    for part in parts:
        if differing := set(classes[part]) ^ set(classes["train"]):
            names = ", ".join(sorted(differing))
            raise DataError(f"{folder}: train and {part} have different classes ({names}).")
    return {part: _found(folder / part, classes["train"]) for part in parts}


def _classes(folder: Path) -> list[str]:
    names = class_folders(folder) if folder.is_dir() else []
    if not names:
        raise DataError(f"{folder}: no such folder, or no classes in it.")
    return names


def _found(folder: Path, classes: list[str]) -> Found:
    found = Found([], [], [])
    for label, name in enumerate(classes):
        pictures = [file for file in visible_files(folder / name) if file.suffix.lower() in PICTURES]
        if not pictures:
            raise DataError(f"{folder / name}: no pictures.")
        found.pictures.extend(pictures)
        found.texts.extend(_text(picture.with_suffix(".txt")) for picture in pictures)
        found.labels.extend([label] * len(pictures))
    return found


def _text(file: Path) -> str:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: {getattr(error, 'strerror', None) or 'is not UTF-8 text'}.") from None
    if not words(text):
        raise DataError(f"{file}: holds no words.")
    return text


# ---- pictures ----------------------------------------------------------------------


def pretrained_vgg19() -> nn.Module:
    """torchvision's VGG-19 with its ImageNet weights, from PyTorch's cache or from the network.

    Raises:
        DataAbsent: they are not in the cache and cannot be fetched. DataError: the cached file is damaged.
    """
    from torchvision.models import VGG19_Weights, vgg19

    weights = VGG19_Weights.IMAGENET1K_V1
    cached = Path(torch.hub.get_dir(), "checkpoints", weights.url.rsplit("/", 1)[1])
    with torch.device("meta"):  # takes no memory and draws nothing: the weights are assigned whole
        model = vgg19()
    try:
        with _short_patience():
            state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
        model.load_state_dict(state, assign=True)
    except DAMAGED as error:
        if cached.exists():
            raise DataError(f"{cached} does not hold VGG-19's weights. Remove it and try again.") from None
        why = " ".join(str(error).split())
        raise DataAbsent(
            f"VGG-19's weights cannot be fetched ({why}). Put {cached.name} into {cached.parent}."
        ) from None
    return model


@contextmanager
def _short_patience():
    """Do not wait long for a server that does not answer."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


@torch.no_grad()
def fc7(vgg: nn.Module, pictures: list[Path]) -> Tensor:
    """The outputs of VGG-19's second fully connected layer, after its ReLU. Shape (N, 4096).

    Raises:
        DataError: a file is not a picture.
    """
    from torchvision.models import VGG19_Weights

    vgg.eval()
    prepare = VGG19_Weights.IMAGENET1K_V1.transforms()  # 224x224 from the middle, shorter side 256
    batches = []
    for start in range(0, len(pictures), PICTURE_BATCH):
        batch = torch.stack([prepare(_picture(file)) for file in pictures[start : start + PICTURE_BATCH]])
        # The classifier is fc6, ReLU, dropout, fc7, ReLU, dropout, fc8.
        batches.append(vgg.classifier[:5](vgg.avgpool(vgg.features(batch)).flatten(1)))
    return torch.cat(batches)


def _picture(file: Path):
    from common.data.pictures import NO_PICTURE, opened

    try:
        with opened(file) as picture:
            return picture.convert("RGB")
    except NO_PICTURE as error:
        raise DataError(f"{file} cannot be read as a picture ({error}).") from None


# ---- texts -------------------------------------------------------------------------


class SentenceCNN(nn.Module):
    """Kim's CNN-rand: word vectors, convolutions of three widths over the words, the largest value of
    each map, dropout, one linear layer."""

    def __init__(self, vocabulary: int, classes: int):
        super().__init__()
        self.vectors = nn.Embedding(vocabulary, WORD_SIZE, padding_idx=PADDING)
        self.convolutions = nn.ModuleList(nn.Conv1d(WORD_SIZE, MAPS, width) for width in WIDTHS)
        self.output = nn.Linear(len(WIDTHS) * MAPS, classes)

    def features(self, sentences: Tensor) -> Tensor:
        """Words (N, L) as numbers, L at least 5, to the pooled features, (N, 300)."""
        vectors = self.vectors(sentences).transpose(1, 2)
        return torch.cat([F.relu(convolve(vectors)).amax(dim=2) for convolve in self.convolutions], dim=1)


def words(text: str) -> list[str]:
    """Lower-case words and numbers."""
    return re.findall(r"[a-z0-9]+(?:'[a-z]+)?", text.lower())


def vocabulary_of(texts: list[str]) -> dict[str, int]:
    """A number for each word, in order of appearance; 0 is padding and 1 stands for any other word."""
    known = dict.fromkeys(word for text in texts for word in words(text))
    return {word: number for number, word in enumerate(known, start=UNKNOWN + 1)}


def as_numbers(texts: list[str], vocabulary: dict[str, int]) -> Tensor:
    """The texts' words, padded to one length, and with enough padding on either side for every
    kernel to cover every word at each of its places. Shape (N, L)."""
    margin = [PADDING] * (max(WIDTHS) - 1)
    rows = [margin + [vocabulary.get(word, UNKNOWN) for word in words(text)] + margin for text in texts]
    return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=PADDING)


def train_sentence_cnn(sentences: Tensor, labels: Tensor, vocabulary: int, seed: int) -> SentenceCNN:
    """Adadelta on the cross-entropy, with dropout and a bound on the output layer's rows (Kim's
    Section 3.1). `sentences` (N, L), `labels` (N,)."""
    model = SentenceCNN(vocabulary, int(labels.max()) + 1)
    _initialise(model, generator(seed, "sentence CNN"))
    optimiser = torch.optim.Adadelta(model.parameters(), rho=0.95, eps=1e-6)
    for epoch in range(EPOCHS):
        draw = generator(seed, "sentence CNN order", epoch)
        for batch in torch.randperm(len(labels), generator=draw).split(TEXT_BATCH):
            features = model.features(sentences[batch])
            kept = (torch.rand(features.shape, generator=draw) >= DROPOUT) / (1 - DROPOUT)
            loss = F.cross_entropy(model.output(features * kept), labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            with torch.no_grad():
                model.output.weight.copy_(model.output.weight.renorm(2, 0, LARGEST_NORM))
                model.vectors.weight[PADDING] = 0
    return model


@torch.no_grad()
def _initialise(model: SentenceCNN, draw: torch.Generator) -> None:
    """Word vectors from U(-0.25, 0.25), as Kim's code has it; the rest from U(-1/√F, 1/√F), F a unit's inputs."""
    model.vectors.weight.uniform_(-0.25, 0.25, generator=draw)
    model.vectors.weight[PADDING] = 0
    for layer in (*model.convolutions, model.output):
        bound = layer.weight[0].numel() ** -0.5
        for parameter in (layer.weight, layer.bias):
            parameter.uniform_(-bound, bound, generator=draw)


def text_features(found: dict[str, Found], seed: int) -> dict[str, Tensor]:
    """The features of every part's texts, (N, 300), by a network trained on the training texts."""
    vocabulary = vocabulary_of(found["train"].texts)
    sentences = {part: as_numbers(pairs.texts, vocabulary) for part, pairs in found.items()}
    labels = torch.tensor(found["train"].labels)
    model = train_sentence_cnn(sentences["train"], labels, UNKNOWN + 1 + len(vocabulary), seed)
    with torch.no_grad():
        return {
            part: torch.cat([model.features(batch) for batch in numbers.split(TEXT_BATCH)])
            for part, numbers in sentences.items()
        }


# ---- the command -------------------------------------------------------------------


def write_authors_layout(out: Path, part: str, images: Tensor, texts: Tensor, labels: list[int]) -> None:
    """Three .mat files, each with one matrix of its own name.

    Raises:
        MachineError: they cannot be written.
    """
    matrices = {"img": images.numpy(), "txt": texts.numpy(), "img_lab": np.array(labels)[:, None]}
    with _writing(out):
        for what, matrix in matrices.items():
            savemat(out / f"{part}_{what}.mat", {f"{part}_{what}": matrix})


@contextmanager
def _writing(out: Path):
    try:
        yield
    except OSError as error:
        raise MachineError(f"{out}: {error.strerror}.") from None


@click.command(help="Features of the pictures and texts in PAIRS as six .mat files in OUT.")
@click.argument("pairs", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the sentence CNN.")
def command(pairs: Path, out: Path, seed: int) -> None:
    make_deterministic(seed)
    found = find_pairs(pairs)
    vgg = pretrained_vgg19()
    with _writing(out):
        out.mkdir(parents=True, exist_ok=True)
    require_writable(out / "any.mat", "Name another OUT.")  # now, before the long work
    say(", ".join(f"{part}: {len(each.labels)} pairs" for part, each in found.items()))
    images = {part: fc7(vgg, each.pictures) for part, each in found.items()}
    texts = text_features(found, seed)
    for name, parts in (("train", ["train"]), ("test", ["val", "test"])):
        parts = [part for part in parts if part in found]
        labels = [label for part in parts for label in found[part].labels]
        write_authors_layout(
            out, name, torch.cat([images[part] for part in parts]), torch.cat([texts[part] for part in parts]), labels
        )
    say(f"written to {out}")


def main() -> None:
    """The command, with the exit codes of every other one."""
    try:
        with memory_told():
            command()
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(error.code)


if __name__ == "__main__":
    main()
