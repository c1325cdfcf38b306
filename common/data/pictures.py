"""Pictures in files that others wrote: with 8 bits per channel, or refused with the reason."""

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin
from PIL.TiffImagePlugin import PREFIXES, ImageFileDirectory_v2

from common.base.errors import DAMAGED

# What Pillow raises on a file that holds no picture, or one whose header promises what cannot be.
NO_PICTURE = (*DAMAGED, Image.DecompressionBombError)

MORE_THAN_EIGHT_BITS = ("I", "F")  # modes of Pillow's; and its "I;16", "I;16B", ...
PNG_BIT_DEPTH = 24  # the byte of the file that has it
BITS_PER_SAMPLE, SAMPLES_PER_PIXEL, SAMPLE_FORMAT = 258, 277, 339  # tags of a TIFF
MOST_SAMPLES = 4  # of a TIFF's pixel: three colours and transparency
UNSIGNED = 1
NUMBERS = {
    UNSIGNED: "unsigned integers", 2: "signed integers", 3: "floating-point numbers", 4: "values of an unnamed kind",
    5: "complex integers", 6: "complex numbers",
}  # fmt: skip


class OtherSamples(ValueError):
    """What a picture's channels hold Pillow has no place for: it would show another picture, or none."""


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """The picture in a file of any size.

    Raises:
        OtherSamples: it has more than 8 bits per channel, or something other than unsigned integers. Whatever else is
            wrong with the file is one of `NO_PICTURE`.
    """
    tiff_samples(path)
    with without_limits(), Image.open(path) as picture:
        require_8_bits(path, picture)
        yield picture


@contextlib.contextmanager
def without_limits() -> Iterator[None]:
    """Without Pillow's limits of size, which are for pictures from strangers (the user chose these), and without its
    own words about what is damaged."""
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    limits = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    Image.MAX_IMAGE_PIXELS = None
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = sys.maxsize  # of a colour profile, too
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = limits


def tiff_samples(path: Path) -> str:
    """What each pixel of a TIFF holds, '' if the file is none or nothing in it says so.

    Raises:
        OtherSamples: that is not up to four unsigned integers of up to 8 bits.
    """
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
        raise OtherSamples(f"it is a TIFF with {said}")
    return said


def require_8_bits(path: Path, picture: Any) -> None:
    """
    Raises:
        OtherSamples: the file has more bits per channel, and Pillow would cut them off.
    """
    if _bits_of_colour(path, picture) > 8 or picture.mode.split(";")[0] in MORE_THAN_EIGHT_BITS:
        raise OtherSamples("it has more than 8 bits per channel")


def _bits_of_colour(path: Path, picture: Any) -> int:
    """Bits per channel of the file, where Pillow has only 8 for colour and would silently cut the rest off."""
    if picture.format == "PNG":
        with open(path, "rb") as stream:
            return stream.read(PNG_BIT_DEPTH + 1)[PNG_BIT_DEPTH]
    if picture.format == "PPM":
        how = picture.tile[0].args  # its mode; and the largest value, if that is not 255
        return how[1].bit_length() if isinstance(how, tuple) else 8
    return 8
