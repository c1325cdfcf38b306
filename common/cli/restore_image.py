"""`eval --image`: a paper's weights at work on a picture of the user's own."""

import contextlib
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from common.base import paths
from common.base.errors import MachineError, UsageError
from common.base.files import write_whole
from common.base.progress import say, warn
from common.claims.papers import Paper
from common.publishing.measure import recipe_of, variant_of, with_weights
from common.training.weights import load_weights

READ = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # for others PIL does not say how many bits it cuts off
EIGHT_BIT_GREY = ("1", "L", "LA")
MORE_THAN_EIGHT_BITS = ("I", "F")  # and PIL's "I;16", "I;16B", ...
PNG_BIT_DEPTH = 24  # the byte of the file that has it
BITS_PER_SAMPLE, SAMPLES_PER_PIXEL, SAMPLE_FORMAT = 258, 277, 339  # tags of a TIFF
MOST_SAMPLES = 4  # of a TIFF's pixel: three colours and transparency
UNSIGNED = 1
NUMBERS = {
    UNSIGNED: "unsigned integers", 2: "signed integers", 3: "floating-point numbers", 4: "values of an unnamed kind",
    5: "complex integers", 6: "complex numbers",
}  # fmt: skip
SAVE_AS = "Save it in grey or RGB, with 8 bits per channel."
ICC_COLOUR_SPACE = slice(16, 20)  # the bytes of a colour profile that have it

JPEG: dict[str, Any] = {"format": "JPEG", "quality": 95, "subsampling": 0}  # with colour as sharp as brightness
WRITTEN: dict[str, dict[str, Any]] = {  # by ending: what loses nothing, and JPEG for whoever asks for it
    ".png": {"format": "PNG"}, ".tif": {"format": "TIFF"}, ".tiff": {"format": "TIFF"}, ".bmp": {"format": "BMP"},
    ".jpg": JPEG, ".jpeg": JPEG,
}  # fmt: skip
WITHOUT_PROFILE = ".bmp"


def restore_image(
    paper: Paper, variant: str | None, weights: list[Path], image: Path, output: Path | None, device: str
) -> None:
    """Restore one picture by the paper's `restore`, and write the result.

    Args:
        variant: whose weights; None for what the file says, else the paper's default variant.
        weights: at most one file; none for the published weights.
        output: where to write, over what is there; None for NAME-restored.png in the current folder, if it is free.

    Raises:
        UsageError: the paper does not restore pictures; no such picture or weights; `output` does not name a
            picture, or names the picture itself.
        MachineError: nothing can be written at `output`, or the picture does not fit into memory.
    """
    from common.training.determinism import make_deterministic
    from common.training.device import choose_device

    restore = getattr(paper.module("eval"), "restore", None)
    if restore is None:
        raise UsageError(f"{paper.name} does not restore pictures: --image is not for it.")
    if len(weights) > 1:
        raise UsageError("--image takes one --weights file.")
    output = output_file(output, image)  # now, because restoring may take minutes
    picture, profile = read_picture(image)
    if profile and output.suffix.lower() == WITHOUT_PROFILE:
        warn(f"{output}: {WITHOUT_PROFILE} holds no colour profile; that of {image} is left out.")
    encoded(output, np.zeros_like(picture), profile)  # so that a size the format cannot hold is reported now
    file = weights[0] if weights else _published(paper, paper.variant(variant))
    loaded, variant = load_weights(file), variant_of(paper, variant, file)
    train = paper.module("train")
    make_deterministic(0)
    recipe = recipe_of(paper, variant, file)
    restored = restore(loaded, recipe, picture, choose_device(device, paper.name, train.DEVICES))
    write_whole(output, encoded(output, restored, profile), "Name another place with --output.")
    say(f"{output}: {image} restored by {paper.name} / {variant}")


def _published(paper: Paper, variant: str) -> Path:
    for file, record in with_weights(paper).items():
        if record.variant == variant:
            return paths.ROOT / file
    raise UsageError(f"No weights of {paper.name} / {variant} are published. Name a file with --weights.")


def output_file(output: Path | None, image: Path) -> Path:
    """Where the restored picture goes, after checking that it can; nothing is written yet.

    Raises:
        UsageError, MachineError: as `restore_image` says.
    """
    file = output or Path(f"{image.stem}-restored.png")
    target = Path(os.path.realpath(file))
    if file.suffix.lower() not in WRITTEN:
        raise UsageError(f"--output {file}: a picture is written as {', '.join(WRITTEN)} only. Use .png.")
    try:
        if output is None and file.exists():
            raise UsageError(f"{file} already exists. Name a file with --output; that one may be overwritten.")
        if file.is_dir():
            raise UsageError(f"--output {file}: that is a folder. Name a file.")
        if target == Path(os.path.realpath(image)):
            raise UsageError(f"--output {file}: that is the picture itself.")
        folder = next(parent for parent in target.parents if parent.exists())
        with tempfile.TemporaryFile(dir=folder):  # not os.access, which knows nothing of full or foreign disks
            return file
    except OSError as error:
        raise MachineError(f"{file}: {error.strerror}. Name another place with --output.") from None


def read_picture(path: Path) -> tuple[np.ndarray, bytes | None]:
    """A picture of a common format and any size, upright and without transparency, and its colour profile.

    Returns:
        uint8, (H, W) if it is grey, else (H, W, 3); and the ICC profile, None if there is none of that colour space.

    Raises:
        UsageError: no such file, not a picture, several pictures, or one with more than 8 bits per channel.
        MachineError: it does not fit into memory.
    """
    from PIL import Image, UnidentifiedImageError

    from common.data.unreadable import NO_PICTURE

    if path.is_dir():
        raise UsageError(f"{path} is a folder: --image takes one picture.")
    if not path.is_file():
        raise UsageError(f"{path}: no such picture.")
    tiff = _tiff_samples(path)
    try:
        with _without_limits():
            _require_one(path)
            with Image.open(path, formats=READ) as opened:
                bits = _bits_of_colour(path, opened)
                opened.load()
                picture = _upright(path, opened)
        if bits > 8 or picture.mode.split(";")[0] in MORE_THAN_EIGHT_BITS:
            raise UsageError(f"{path} has more than 8 bits per channel: save it with 8.")
        if picture.mode == "P":  # converting straight to RGB, PIL complains about some kinds of transparency
            picture = picture.convert("RGBA")
        profile = picture.info.get("icc_profile")
        picture = picture.convert("L" if picture.mode in EIGHT_BIT_GREY else "RGB")
    except UnidentifiedImageError:
        if tiff:
            raise UsageError(f"{path} is a kind of TIFF that is not read here ({tiff}). {SAVE_AS}") from None
        raise UsageError(f"{path} is not a picture in a format that is read here ({', '.join(READ)}).") from None
    except NO_PICTURE as error:
        raise UsageError(f"{path} cannot be read as a picture ({' '.join(str(error).split())}).") from None
    except MemoryError:
        raise MachineError(f"{path} does not fit into memory. Cut it into parts.") from None
    if profile and profile[ICC_COLOUR_SPACE] != (b"GRAY" if picture.mode == "L" else b"RGB "):
        warn(f"{path}: its colour profile is not for {picture.mode} and is left out.")
        profile = None
    return np.asarray(picture), profile


@contextlib.contextmanager
def _without_limits() -> Iterator[None]:
    """Without PIL's limits of size, which are for pictures from strangers (the user named this one), and without its
    own words about what is damaged."""
    from PIL import Image, PngImagePlugin

    logging.getLogger("PIL").addHandler(logging.NullHandler())
    limits = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    Image.MAX_IMAGE_PIXELS = None
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = sys.maxsize  # of a colour profile, too
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = limits


def _require_one(path: Path) -> None:
    """
    Raises:
        UsageError: the file holds several pictures. One that is sound before damaged ones counts as the only one.
    """
    from PIL import Image

    from common.data.unreadable import NO_PICTURE

    with Image.open(path, formats=READ) as opened:  # to be opened again: counting may leave it at a damaged one
        try:
            pictures = getattr(opened, "n_frames", 1)
        except NO_PICTURE:
            warn(f"{path}: what follows its first picture is damaged and is left out.")
            return
        if pictures > 1 and opened.format != "MPO":  # the JPEG of a camera, with a preview or depths behind it
            raise UsageError(f"{path} holds {pictures} pictures: save the one that you want as a file of its own.")


def _upright(path: Path, picture: Any) -> Any:
    """A picture turned as its EXIF data says."""
    from PIL import ImageOps

    from common.data.unreadable import NO_PICTURE

    try:
        return ImageOps.exif_transpose(picture)
    except NO_PICTURE:
        warn(f"{path}: its EXIF data is damaged: whether it lies upright is not known.")
        return picture.copy()


def _tiff_samples(path: Path) -> str:
    """What each pixel of a TIFF holds, '' if the file is none or nothing in it says so.

    Raises:
        UsageError: something that PIL has no place for, and would show as another picture or not at all.
    """
    from PIL.TiffImagePlugin import PREFIXES, ImageFileDirectory_v2

    from common.data.unreadable import NO_PICTURE

    with open(path, "rb") as stream, warnings.catch_warnings(action="ignore"):
        header = stream.read(8)
        if not header.startswith(tuple(PREFIXES)):
            return ""
        try:
            big = 43 in header[2:4]
            tags = ImageFileDirectory_v2(header + stream.read(8) if big else header)
            stream.seek(tags.next)
            tags.load(stream)
            bits, kinds = max(tags.get(BITS_PER_SAMPLE, (1,))), set(tags.get(SAMPLE_FORMAT, (UNSIGNED,)))
            samples = int(tags.get(SAMPLES_PER_PIXEL, 1))
        except NO_PICTURE:
            return ""
    numbers = " and ".join(NUMBERS.get(kind, f"values of kind {kind}") for kind in sorted(kinds))
    said = f"{samples} channel{'s' * (samples != 1)} of {bits}-bit {numbers}"
    if kinds != {UNSIGNED} or bits > 8 or samples > MOST_SAMPLES:
        raise UsageError(f"{path} is a TIFF with {said}. {SAVE_AS}")
    return said


def _bits_of_colour(path: Path, opened: Any) -> int:
    """Bits per channel of the file, where PIL has only 8 for colour and would silently cut the rest off."""
    if opened.format == "PNG":
        with open(path, "rb") as stream:
            return stream.read(PNG_BIT_DEPTH + 1)[PNG_BIT_DEPTH]
    if opened.format == "PPM":
        how = opened.tile[0].args  # its mode; and the largest value, if that is not 255
        return how[1].bit_length() if isinstance(how, tuple) else 8
    return 8


def encoded(path: Path, picture: np.ndarray, profile: bytes | None) -> bytes:
    """A picture, uint8 of shape (H, W) or (H, W, 3), with its colour profile in the format that the name ends in.

    Raises:
        UsageError: the format cannot hold a picture of this size.
    """
    from PIL import Image

    content = io.BytesIO()
    try:
        Image.fromarray(picture).save(content, icc_profile=profile, **WRITTEN[path.suffix.lower()])
    except (OSError, ValueError):
        raise UsageError(f"{path}: this picture is too large for {path.suffix}. Use .png.") from None
    return content.getvalue()
