"""`eval --image`: a paper's weights at work on a picture of the user's own."""

import io
from pathlib import Path

import numpy as np

from common import layout
from common.errors import UsageError
from common.files import write_whole
from common.measure import with_weights
from common.papers import Paper
from common.progress import say
from common.weights import load_weights

EIGHT_BIT_GREY = ("1", "L", "LA")
MORE_THAN_EIGHT_BITS = ("I", "F")  # and PIL's "I;16", "I;16B", ...
PNG_BIT_DEPTH = 24  # the byte of the file that has it
TIFF_BITS_PER_SAMPLE = 258  # the tag that has them


def restore_image(
    paper: Paper, variant: str | None, weights: list[Path], image: Path, output: Path | None, device: str
) -> None:
    """Restore one picture by the paper's `restore`, and write the result.

    Args:
        variant: whose weights; None for the paper's default variant.
        weights: at most one file; none for the published weights.
        output: where to write; None for NAME-restored.png in the current folder.

    Raises:
        UsageError: the paper restores no pictures; no such picture or weights; `output` would replace the picture, or
            has an ending in which no picture like this one can be written.
    """
    from common.determinism import make_deterministic
    from common.device import choose_device

    variant = paper.variant(variant)
    restore = getattr(paper.module("eval"), "restore", None)
    if restore is None:
        raise UsageError(f"{paper.name} restores no pictures: --image is not for it.")
    if len(weights) > 1:
        raise UsageError("--image takes one --weights file.")
    output = output or Path(f"{image.stem}-restored.png")
    if output.resolve() == image.resolve():
        raise UsageError(f"--output {output}: that is the picture itself.")
    picture = read_picture(image)
    encoded(output, np.zeros_like(picture))  # now, because restoring may take minutes
    loaded = load_weights(weights[0] if weights else _published(paper, variant))
    train = paper.module("train")
    make_deterministic(0)
    restored = restore(loaded, train.recipe(variant, "full"), picture, choose_device(device, paper.name, train.DEVICES))
    write_whole(output, encoded(output, restored))
    say(f"{output}: {image} restored by {paper.name} / {variant}")


def _published(paper: Paper, variant: str) -> Path:
    for record in with_weights(paper):
        if record.variant == variant:
            return layout.ROOT / record.weights.file
    raise UsageError(f"No weights of {paper.name} / {variant} are published. Name a file with --weights.")


def read_picture(path: Path) -> np.ndarray:
    """A picture of any common format as uint8, (H, W) if it is grey, else (H, W, 3); upright, without transparency.

    Raises:
        UsageError: no such file, no picture, or one with more than 8 bits a channel.
    """
    from PIL import Image, ImageOps

    from common.damaged import NO_PICTURE

    if not path.is_file():
        raise UsageError(f"{path}: no such picture.")
    try:
        with Image.open(path) as opened:
            bits = _bits_of_colour(path, opened)
            picture = ImageOps.exif_transpose(opened)
            picture.load()
    except NO_PICTURE as error:
        raise UsageError(f"{path} is no picture that can be read ({' '.join(str(error).split())}).") from None
    if bits > 8 or picture.mode.split(";")[0] in MORE_THAN_EIGHT_BITS:
        raise UsageError(f"{path} has more than 8 bits a channel: save it with 8.")
    return np.asarray(picture.convert("L" if picture.mode in EIGHT_BIT_GREY else "RGB"))


def _bits_of_colour(path: Path, opened) -> int:
    """Bits a channel of the file, where PIL has only 8 for colour and would cut the rest off unsaid."""
    if opened.format == "PNG":
        return path.read_bytes()[PNG_BIT_DEPTH]
    if opened.format == "TIFF":
        return max(opened.tag_v2.get(TIFF_BITS_PER_SAMPLE, (1,)))
    return 8


def encoded(path: Path, picture: np.ndarray) -> bytes:
    """A picture, uint8 of shape (H, W) or (H, W, 3), in the format that the name ends in.

    Raises:
        UsageError: no format has this ending, or none in which a picture like this can be written.
    """
    from PIL import Image

    formats = Image.registered_extensions()
    if path.suffix.lower() not in formats:
        raise UsageError(f"{path}: no picture format ends in {path.suffix!r}. Use .png.")
    content = io.BytesIO()
    try:
        Image.fromarray(picture).save(content, format=formats[path.suffix.lower()])
    except (KeyError, OSError, ValueError):  # PIL only reads this format, or not this size or colour
        raise UsageError(f"{path}: this picture cannot be written as {path.suffix!r}. Use .png.") from None
    return content.getvalue()
