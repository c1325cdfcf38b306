"""`eval --image`: a paper's weights at work on a picture of the user's own."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from common.base import paths
from common.base.errors import MachineError, UsageError
from common.base.files import ANOTHER_PLACE, require_writable, write_whole
from common.base.progress import say, warn
from common.claims.papers import Paper
from common.publishing.measure import recipe_of, variant_of, with_weights
from common.training.weights import load_weights

READ = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # for others PIL does not say how many bits it cuts off
EIGHT_BIT_GREY = ("1", "L", "LA")
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
        variant: whose weights; None for what the file says, or of published weights the paper's default variant, or
            else the first that has some.
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
    file = weights[0] if weights else _published(paper, variant)
    loaded, variant = load_weights(file), variant_of(paper, variant, file)
    train = paper.module("train")
    make_deterministic(0)
    recipe = recipe_of(paper, variant, file)
    restored = restore(loaded, recipe, picture, choose_device(device, paper.name, train.DEVICES))
    write_whole(output, encoded(output, restored, profile), ANOTHER_PLACE)
    say(f"{output}: {image} restored by {paper.name} / {variant}")


def _published(paper: Paper, variant: str | None) -> Path:
    """The published weights of a variant; of None those of the default variant, or else of the first in paper.yaml that
    has some."""
    files = {record.variant: file for file, record in with_weights(paper).items()}
    asked = [paper.variant(variant), *(paper.variants if variant is None else [])]
    for name in asked:
        if name in files:
            return paths.ROOT / files[name]
    raise UsageError(f"No weights of {paper.name} / {asked[0]} are published. Name a file with --weights.")


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
    except OSError as error:
        raise MachineError(f"{file}: {error.strerror}. {ANOTHER_PLACE}") from None
    if target == Path(os.path.realpath(image)):
        raise UsageError(f"--output {file}: that is the picture itself.")
    require_writable(file, ANOTHER_PLACE)
    return file


def read_picture(path: Path) -> tuple[np.ndarray, bytes | None]:
    """A picture of a common format and any size, upright and without transparency, and its colour profile.

    Returns:
        uint8, (H, W) if it is grey, else (H, W, 3); and the ICC profile, None if there is none of that colour space.

    Raises:
        UsageError: no such file, not a picture, several pictures, or one with more than 8 bits per channel.
        MachineError: it does not fit into memory.
    """
    from PIL import Image, UnidentifiedImageError

    from common.data.pictures import NO_PICTURE, OtherSamples, require_8_bits, tiff_samples, without_limits

    if path.is_dir():
        raise UsageError(f"{path} is a folder: --image takes one picture.")
    if not path.is_file():
        raise UsageError(f"{path}: no such picture.")
    tiff = ""
    try:
        tiff = tiff_samples(path)
        with without_limits():
            _require_one(path)
            with Image.open(path, formats=READ) as opened:
                require_8_bits(path, opened)
                opened.load()
                picture = _upright(path, opened)
        if picture.mode == "P":  # converting straight to RGB, PIL complains about some kinds of transparency
            picture = picture.convert("RGBA")
        profile = picture.info.get("icc_profile")
        picture = picture.convert("L" if picture.mode in EIGHT_BIT_GREY else "RGB")
    except OtherSamples as what:
        raise UsageError(f"{path}: {what}. {SAVE_AS}") from None
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


def _require_one(path: Path) -> None:
    """
    Raises:
        UsageError: the file holds several pictures. One that is sound before damaged ones counts as the only one.
    """
    from PIL import Image

    from common.data.pictures import NO_PICTURE

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

    from common.data.pictures import NO_PICTURE

    try:
        return ImageOps.exif_transpose(picture)
    except NO_PICTURE:
        warn(f"{path}: its EXIF data is damaged: whether it lies upright is not known.")
        return picture.copy()


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
