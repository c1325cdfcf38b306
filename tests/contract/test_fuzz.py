"""Whatever a file holds, or a command line says: an error that a user can cause, and never a traceback, a crash, a hang
or a full memory.

Each input begins as a sound file or a sound command, or as nothing, and is then damaged. What is drawn is the same in
every run. `-m slow` draws twenty times as many.
"""

import contextlib
import copy
import io
import json
import multiprocessing
import os
import resource
import signal
import struct
import sys
import time
import traceback
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import h5py
import numpy as np
import pytest
import safetensors.numpy
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from common.base import paths
from common.base.errors import UserError, memory_told
from common.base.schema import YamlLoader
from common.claims.papers import Paper, find_papers
from tests.contract.helpers import PAPER, ROOT, TOY

PATIENCE_S = 20  # for one input
MEMORY = 2**30  # bytes, beyond what the process has at its start
CODES = {0, 1, 2, 3, 4, 5, 130, 143}  # those that the README documents
CRASH = "crash"


# ---- a process that may crash, hang or want too much -------------------------------------------


def bound() -> None:
    """Takes the memory that there is from this process, but for `MEMORY`."""
    if sys.platform == "linux":  # elsewhere there is no such file, and no such limit
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ.pop("REPRO_DATA", None)
    torch.set_num_threads(1)


def told(read: Callable, words: list) -> str:
    """What the user is told, '' where there is nothing to tell. Any other error is handed on as text."""
    try:
        signal.alarm(PATIENCE_S)  # which ends the process, in whatever code it hangs
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), memory_told():
            read(*words)  # as every command does
        return ""
    except UserError as error:
        return str(error)
    except BaseException:
        raise AssertionError(traceback.format_exc()) from None
    finally:
        signal.alarm(0)


class Apart:
    """Calls functions in a process of its own; another one takes its place where it crashes."""

    def __init__(self):
        self.pool = self._start()

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, multiprocessing.get_context("forkserver"), initializer=bound)

    def __call__(self, read: Callable, *words) -> str:
        begun = time.monotonic()
        try:
            return self.pool.submit(told, read, list(words)).result()
        except BrokenProcessPool:
            self.pool = self._start()
            assert time.monotonic() - begun < PATIENCE_S, "it hangs"
            return CRASH


@pytest.fixture(scope="module")
def apart():
    apart = Apart()
    yield apart
    apart.pool.shutdown(cancel_futures=True)


def draw_inputs(inputs: st.SearchStrategy, count: int, check: Callable, known: Iterable = ()) -> None:
    """Check `count` inputs, after those that are `known` to have done harm."""
    for content in known:
        check(content)

    @settings(max_examples=count, derandomize=True, database=None, deadline=None, suppress_health_check=HealthCheck)
    @given(inputs)
    def each(content):
        check(content)

    each()


def both(usual: int):
    """The test twice: with `usual` inputs, and among the slow tests with twenty times as many."""
    return pytest.mark.parametrize("count", [usual, pytest.param(20 * usual, marks=pytest.mark.slow)])


# ---- damage ------------------------------------------------------------------------------------

ABSURD = [0, 1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]
HEADER = 256


def number(value: int, order: str, size: str) -> bytes:
    bits = {"B": 8, "H": 16, "I": 32, "Q": 64}[size]
    return struct.pack(order + size, value % 2**bits)


NUMBERS = st.builds(number, st.sampled_from(ABSURD), st.sampled_from("<>"), st.sampled_from("BHIQ"))


@st.composite
def damaged(draw, whole: bytes) -> bytes:
    """Bits flipped, numbers made absurd, parts cut out or repeated, the end cut off: mostly near the beginning."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, min(HEADER, len(content))) | st.integers(0, len(content)))
        kind = draw(st.sampled_from(["flip", "number", "cut out", "repeat", "end"]))
        if kind == "flip" and place < len(content):
            content[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "number":
            value = draw(NUMBERS)
            content[place : place + len(value)] = value
        elif kind == "cut out":
            del content[place : place + draw(st.integers(1, 64))]
        elif kind == "repeat":
            content[place:place] = content[place : place + draw(st.integers(1, 64))]
        elif kind == "end":
            del content[place:]
    return bytes(content)


def anything(*wholes: bytes) -> st.SearchStrategy[bytes]:
    """One of these files damaged, its first bytes before others, or others alone."""
    files = st.sampled_from(wholes)
    return (
        files.flatmap(damaged)
        | st.builds(lambda whole, rest: whole[:8] + rest, files, st.binary(max_size=300))
        | st.binary(max_size=300)
    )


def written(write: Callable, *words, **how) -> bytes:
    file = io.BytesIO()
    write(file, *words, **how)
    return file.getvalue()


# ---- paper.yaml, records, curves ----------------------------------------------------------------

VALUES = (
    st.sampled_from([None, True, 0, -1, 10**400, 1e308, float("nan"), "", "nan", "1e999", "../..", "/", [], {}, [[]]])
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
)


@st.composite
def altered(draw, whole):
    """Plain content with a value somewhere in it replaced, removed or given another name."""
    content = json.loads(json.dumps(whole))
    for _ in range(draw(st.integers(1, 3))):
        at = content
        while isinstance(at, dict | list) and at:
            key = draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
            if not isinstance(at[key], dict | list) or draw(st.integers(0, 4)) == 0:
                kind = draw(st.sampled_from(["replace", "replace", "remove", "rename"]))
                if kind == "replace":
                    at[key] = copy.deepcopy(draw(VALUES))
                elif kind == "remove":
                    del at[key]
                elif isinstance(at, dict):
                    at[draw(st.text(max_size=10))] = at.pop(key)
                break
            at = at[key]
    return content


DEEP = 100_000  # so many levels crash the reader of YAML
LAUGHS = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)).encode()
YAML_ODDITIES = [
    b"!!int ''", b"!!float ''", b"!!bool perhaps", b"!!timestamp never", b"!!binary '*'", b"&a [*a]",
    b"{? &a [*a] : 1}", b"!!python/object:os.system {}", b"2001-99-99", b"!!set {a, a}", b"!!pairs [1]", b"!!omap [a]",
    b"<<: 1", b"{<<: *a}", b"1" * 5000, b"[" * DEEP, b"{a: " * DEEP, b"- " * DEEP, b"? " * DEEP, b"\xff\xfe", b"\0",
    b"%YAML 9.9\n---\n", b"--- 1\n--- 2\n", b"a0: &a0 [1]\n" + LAUGHS,
]  # fmt: skip


def yaml_texts(whole: bytes) -> st.SearchStrategy[bytes]:
    as_json = altered(yaml.load(whole, YamlLoader)).map(lambda content: json.dumps(content).encode())  # which is YAML
    lines = whole.split(b"\n")
    instead_of_a_line = st.builds(
        lambda odd, line: b"\n".join([*lines[:line], b"frozen: " + odd, *lines[line + 1 :]]),
        st.sampled_from(YAML_ODDITIES), st.integers(0, len(lines)),
    )  # fmt: skip
    return as_json | instead_of_a_line | anything(whole)


@both(60)
@pytest.mark.parametrize("paper", ["toy", "hybridsn"])
def test_a_damaged_paper_yaml_is_told(apart, tmp_path, count, paper):
    source = TOY if paper == "toy" else ROOT / "papers" / paper
    (tmp_path / "paper" / "passports").mkdir(parents=True)
    for passport in source.glob("passports/*.yaml"):
        (tmp_path / "paper" / "passports" / passport.name).write_bytes(passport.read_bytes())

    def check(text: bytes) -> None:
        (tmp_path / "paper" / "paper.yaml").write_bytes(text)
        assert apart(Paper, tmp_path / "paper") != CRASH

    draw_inputs(yaml_texts((source / "paper.yaml").read_bytes()), count, check, known=YAML_ODDITIES)


def read_records(root: Path) -> None:
    from common.training.records import published_records

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "RECORDS", root / "results" / "records")
        published_records()


NESTED = [b"[" * DEEP, b'{"a":' * DEEP, b"[" * 900 + b"]" * 900]
JSON_ODDITIES = [*NESTED, b"1" * 5000, b'"\\ud800"', b"NaN", b"\xff\xfe[]"]


def json_texts(whole: bytes) -> st.SearchStrategy[bytes]:
    as_json = altered(json.loads(whole)).map(lambda content: json.dumps(content).encode())
    return as_json | st.sampled_from(inside(whole)) | anything(whole)


def inside(whole: bytes) -> list[bytes]:
    """A record with an odd value in it."""
    values = [*JSON_ODDITIES, b'"/absolute"', b'"../.."', b'""']
    holes = [json.dumps(json.loads(whole) | {name: "HOLE"}).encode() for name in ("seed", "details", "paper")]
    return [hole.replace(b'"HOLE"', value) for hole in holes for value in values]


@both(60)
def test_a_damaged_record_is_told(apart, tmp_path, count):
    place = Path("results/records") / PAPER / "lenet5" / "official" / "seed-1.json"
    file = tmp_path / place
    file.parent.mkdir(parents=True)

    def check(text: bytes) -> None:
        file.write_bytes(text)
        assert apart(read_records, tmp_path) != CRASH

    whole = (ROOT / place).read_bytes()
    elsewhere = whole.replace(b'"paper": "lenet5_1998"', b'"paper": "/elsewhere"')
    draw_inputs(json_texts(whole), count, check, known=[*JSON_ODDITIES, elsewhere])


def plot_curves(folder: Path) -> None:
    from common.cli.plot import plot_runs

    plot_runs([folder], folder / "curves.png")


CURVES = b"train_error,test_error\n1.5,2\n0.5,1e3\n"


@both(10)
def test_damaged_curves_are_told(apart, tmp_path, count):
    def check(text: bytes) -> None:
        (tmp_path / "curves.csv").write_bytes(text)
        assert apart(plot_curves, tmp_path) != CRASH

    known = [b"", b"\n", b"a\n1,2", b"a,a\n1,2", b"a\nnan\ninf", b"a\n" + b"1" * 200_000, b'a\n"1', b"\0\n1", b"a\n"]
    draw_inputs(anything(CURVES), count, check, known)


# ---- data --------------------------------------------------------------------------------------

IDX = b"\0\0\x08\x03" + struct.pack(">III", 2, 3, 4) + bytes(range(24))


def read_idx(file: Path) -> None:
    from papers.lenet5_1998.data import read_idx

    read_idx(file.read_bytes(), file.name)


def read_batch(file: Path) -> None:
    from common.data.cifar10 import read_batch

    read_batch(file, pictures=2)


def gzipped(content: bytes) -> bytes:
    import gzip

    return gzip.compress(content, mtime=0)


DATA = {
    "idx": (read_idx, anything(IDX, gzipped(IDX)) | damaged(IDX).map(gzipped)),
    "CIFAR": (read_batch, anything(bytes(3073) * 2) | st.binary(min_size=2, max_size=2).map(lambda b: b * 3073)),
}


@both(40)
@pytest.mark.parametrize("kind", DATA)
def test_a_damaged_dataset_file_is_told(apart, tmp_path, count, kind):
    read, inputs = DATA[kind]

    def check(content: bytes) -> None:
        (tmp_path / "file").write_bytes(content)
        assert apart(read, tmp_path / "file") != CRASH

    draw_inputs(inputs, count, check)


# ---- matrices ----------------------------------------------------------------------------------

CUBE = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
BEFORE_THE_ELEMENT = 128  # bytes of a version 5 file
PLAIN = written(savemat, {"m": CUBE})


def compressed(plain: bytes) -> bytes:
    """A version 5 file whose only element is compressed, with the right checksum, whatever is in it."""
    packed = zlib.compress(plain[BEFORE_THE_ELEMENT:])
    return plain[:BEFORE_THE_ELEMENT] + struct.pack("<II", 15, len(packed)) + packed


def version_73() -> bytes:
    def write(file):
        with h5py.File(file, "w") as hdf5:
            hdf5.create_dataset("m", data=CUBE.T, compression="gzip").attrs["MATLAB_class"] = np.bytes_("uint16")

    return written(write)


MATRICES = {
    "version 4": ("m.mat", anything(written(savemat, {"m": CUBE[0]}, format="4"))),
    "version 5": ("m.mat", anything(PLAIN) | damaged(PLAIN).map(compressed)),
    "version 7.3": ("m.mat", anything(version_73())),
    "NumPy": ("m.npy", anything(written(np.save, CUBE))),
}


def read_matrix(file: Path) -> None:
    from common.data.matlab import read_matrix

    read_matrix(file, "m", vouched=True)


@both(20)
@pytest.mark.parametrize("kind", MATRICES)
def test_a_damaged_matrix_is_told_or_ends_the_process_that_reads_it(apart, tmp_path, count, kind):
    """A crash is no fault here: where no checksum vouches for a file, it is read in a process of its own."""
    name, inputs = MATRICES[kind]

    def check(content: bytes) -> None:
        (tmp_path / name).write_bytes(content)
        said = apart(read_matrix, tmp_path / name)
        assert said != CRASH or kind.startswith("version")

    draw_inputs(inputs, count, check)


# ---- pictures ----------------------------------------------------------------------------------


def picture(kind: str, mode: str = "RGB", **how) -> bytes:
    pixels = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
    return written(Image.fromarray(pixels).convert(mode).save, kind, **how)


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, rest: bytes, pixels: bytes) -> bytes:
    """A PNG whose checksums are right, whatever its header says."""
    header = struct.pack(">II", width % 2**32, height % 2**32) + rest
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


EMPTY_PNG = png(1, 1, bytes([1, 0, 0, 0, 0]), b"")[:-24]  # its pixels never begin: torchvision's decoder crashes
VAST_PNG = png(32_768, 32_768, bytes([1, 0, 0, 0, 0]), b"")  # more than the memory, where there is little
SIZES = st.sampled_from([*ABSURD, 3, 20_000, 60_000])
PNGS = st.builds(
    png, SIZES, SIZES,
    st.builds(lambda bits, colour: bytes([bits, colour, 0, 0, 0]), st.sampled_from([1, 8, 16, 99]), st.integers(0, 7)),
    st.binary(max_size=50),
)  # fmt: skip
PICTURES = {
    "PNG": anything(picture("PNG"), picture("PNG", "P")) | PNGS,
    "BMP": anything(picture("BMP"), picture("BMP", "L")),
    "TIFF": anything(picture("TIFF"), picture("TIFF", "L", compression="tiff_lzw"), picture("TIFF", big_tiff=True)),
    "JPEG": anything(picture("JPEG"), picture("JPEG", progressive=True, exif=Image.Exif())),
}


def read_class_picture(file: Path) -> None:
    from common.data.image_folder import read_picture

    read_picture(file)


def read_encoded_picture(file: Path) -> None:
    from common.data.imagenet import Encoded

    Encoded([str(file)])[0]


def read_own_picture(file: Path) -> None:
    from common.cli.restore_image import read_picture

    read_picture(file)


def read_training_picture(file: Path) -> None:
    from papers.dncnn.data import _read

    _read(file)


READERS = [read_class_picture, read_encoded_picture, read_own_picture, read_training_picture]


@both(20)
@pytest.mark.parametrize("kind", PICTURES)
def test_a_damaged_picture_is_told_by_everything_that_reads_pictures(apart, tmp_path, count, kind):
    def check(content: bytes) -> None:
        (tmp_path / "picture").write_bytes(content)
        for read in READERS:
            assert apart(read, tmp_path / "picture") != CRASH

    draw_inputs(PICTURES[kind], count, check, known=[EMPTY_PNG, VAST_PNG] if kind == "PNG" else [])


# ---- weights -----------------------------------------------------------------------------------

WEIGHTS = {
    ".safetensors": safetensors.numpy.save({"a": np.ones((2, 3), np.float32)}, {"run": "a/b/seed-0"}),
    ".pth": written(lambda file: torch.save({"a": torch.ones(2, 3)}, file)),
}


def read_weights(file: Path) -> None:
    from common.training.weights import load_weights, named_recipe, trained_as

    load_weights(file)
    trained_as(file)
    named_recipe(file)


@both(20)
@pytest.mark.parametrize("ending", WEIGHTS)
def test_a_damaged_weights_file_is_told(apart, tmp_path, count, ending):
    def check(content: bytes) -> None:
        file = (tmp_path / "weights").with_suffix(ending)
        file.write_bytes(content)
        assert apart(read_weights, file) != CRASH

    draw_inputs(anything(WEIGHTS[ending]), count, check)


# ---- the command line --------------------------------------------------------------------------

# Where work begins: whatever the words say, nothing of it is done.
WORK = [
    "common.cli.run_seeds._find", "common.cli.run_seeds.launch", "common.cli.listing.real_data",
    "common.cli.listing.show_papers", "common.cli.listing.show_passports", "common.publishing.measure.real_data",
    "common.publishing.measure.available", "common.publishing.released.available",
    "common.publishing.publish.publish_runs",
    "common.publishing.released.publish_released", "common.publishing.verify.verify_papers",
    "common.publishing.bench.run_benchmarks", "common.pages.tables.rebuild", "subprocess.run",
]  # fmt: skip


def reached(*words, **named):
    raise UserError("Work would begin here.")


def command(words: list[str], folder: Path) -> None:
    """What the command line makes of these words, as far as the place where work would begin."""
    from common.cli.commands import main

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()) as complaint:
        patch.chdir(folder)
        for place in WORK:
            patch.setattr(place, reached)
        with pytest.raises(SystemExit) as ended:
            main(list(words))
    assert ended.value.code in CODES
    if words[:1] != ["all"]:  # which has something to say of every paper
        assert len(complaint.getvalue().splitlines()) <= 2 + len("".join(words).splitlines()), complaint.getvalue()


COMMANDS = [
    [PAPER, "--variant", "lenet5", "--preset", "smoke", "--seeds", "0,1", "--passes", "3", "--eta", "[[20, 0.1]]"],
    [PAPER, "--device=cpu", "--data", "standin", "--data-dir", "data", "--mu=0.02", "--json", "--check", "--fresh"],
    ["resnet", "--nproc", "2", "--variant", "resnet20", "--learning-rate", "0.1", "--milestones", "[1, 2]"],
    ["dncnn", "--variant", "sigma25", "--batch-size", "128", "--precision", "float32"],
    ["googlenet", "--epochs", "1"], ["senet", "--weight-decay", "1e-4"], ["dscmr", "--epochs", "2"],
    ["hybridsn", "--variant", "indian_pines-random30", "--epochs", "9", "--other-machine"],
    ["list", PAPER, "--json"], ["data", "mnist"], ["cite", PAPER, "--claim", "lenet5-test", "--json"],
    ["eval", PAPER, "--variant", "blog", "--weights", "weights.safetensors", "--device", "cpu"],
    ["eval", "dncnn", "--image", "photo.jpg", "--output", "out.png"], ["eval", "dncnn", "--released"],
    ["publish", PAPER, "--runs-dir", "runs", "--replace"], ["plot", "runs/lenet5_1998", "--output", "curves.png"],
    ["verify", PAPER, "--rerun", "3", "--variant", "blog"], ["table", "--json"], ["bench", PAPER], ["all", "--json"],
]  # fmt: skip
VOCABULARY = sorted({word for words in COMMANDS for word in words} | {"--help", "--", "-", "", "=", "--=", "nan", "-1"})
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)  # what a shell can pass
NUMERALS = st.sampled_from(
    ["9" * 5000, "1e999", "-0", "٣", "0x10", "[" * 5000, "[[1e400]]", "{}", "null", "\udcff", "²"]
)


@st.composite
def mistyped(draw) -> list[str]:
    """A sound command with words left out, repeated, exchanged, made up or cut."""
    words = list(draw(st.sampled_from(COMMANDS)))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(words)))
        kind = draw(st.sampled_from(["value", "value", "word", "text", "leave out", "cut"]))
        if kind == "leave out":
            del words[place : place + 1]
        elif kind == "cut" and place < len(words):
            words[place] = words[place][: draw(st.integers(0, len(words[place])))]
        elif kind == "value" and place < len(words):
            words[place] = draw(NUMERALS | TEXT)
        else:
            words.insert(place, draw(st.sampled_from(VOCABULARY) if kind == "word" else TEXT))
    return [word for word in words if word != "/"]  # nobody waits for `plot /`


@both(80)
def test_a_mistyped_command_is_told(apart, tmp_path, count):
    known = [[PAPER, "--seeds", "9" * 5000], ["plot", "9" * 5000], ["list", "\udcff"]]

    def check(words: list[str]) -> None:
        assert apart(command, words, tmp_path) != CRASH

    draw_inputs(mistyped(), count, check, known)


def test_the_commands_that_are_mistyped_name_every_paper():
    assert {words[0] for words in COMMANDS} >= set(find_papers())
