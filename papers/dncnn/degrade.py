"""What spoils the pictures that DnCNN-3 restores: bicubic resizing as in Matlab, and JPEG (Sec. III-F)."""

import io
import math

import numpy as np
from PIL import Image

# Rec. 601, in the range 16 to 235, as Matlab's rgb2ycbcr.
LUMA = np.array([65.481, 128.553, 24.966])


def luminance(picture: np.ndarray) -> np.ndarray:
    """Y of a picture in colour; a grey one as it is.

    Args:
        picture: (H, W) or (H, W, 3), as uint8 or as float from 0 to 1.

    Returns:
        (H, W) of the same kind: uint8 is rounded.
    """
    if picture.ndim == 2:
        return picture
    if picture.dtype == np.uint8:
        return np.floor(picture @ LUMA / 255 + 16 + 0.5).astype(np.uint8)
    return (picture @ LUMA + 16) / 255


def cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic kernel with a = -1/2."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def imresize(picture: np.ndarray, scale: float) -> np.ndarray:
    """Bicubic resizing as Matlab's imresize does it.

    Where it shrinks, the kernel is as much wider, so that nothing is aliased; weights
    add up to one; beyond the edge the picture is mirrored, the edge pixel first.

    Args:
        picture: (H, W) or (H, W, 3), uint8 or float.

    Returns:
        ceil(scale H) rows and ceil(scale W) columns of the same kind; uint8 is rounded and
        saturated, float may leave the range of the input.
    """
    resized = picture.astype(np.float64)
    for axis in (0, 1):
        where, weights = _contributions(picture.shape[axis], scale)
        gathered = np.moveaxis(resized, axis, 0)[where]  # (out, taps, ...)
        resized = np.moveaxis(np.einsum("ot,ot...->o...", weights, gathered), 0, axis)
    if picture.dtype == np.uint8:
        return np.clip(np.floor(resized + 0.5), 0, 255).astype(np.uint8)
    return resized


def _contributions(length: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """For every output pixel: which input pixels it is made of, and their weights. Both (out, taps)."""
    stretch = max(1.0, 1 / scale)
    taps = math.ceil(4 * stretch) + 2
    centres = (np.arange(math.ceil(scale * length)) + 0.5) / scale - 0.5
    where = np.floor(centres - 2 * stretch)[:, None].astype(int) + np.arange(taps)
    weights = cubic((centres[:, None] - where) / stretch)
    weights /= weights.sum(axis=1, keepdims=True)
    where = where % (2 * length)
    return np.where(where < length, where, 2 * length - 1 - where), weights


def crop_to_multiple(picture: np.ndarray, factor: int) -> np.ndarray:
    """Without the last rows and columns that `factor` does not divide."""
    height, width = (side - side % factor for side in picture.shape[:2])
    return picture[:height, :width]


def small_and_large_again(picture: np.ndarray, factor: int) -> np.ndarray:
    """Luminance of a picture shrunk to 8-bit pixels and enlarged: the input of super-resolution.

    Args:
        picture: (H, W) or (H, W, 3), uint8, its sides multiples of `factor`.

    Returns:
        (H, W), float64, about 0 to 1.
    """
    small = imresize(picture, 1 / factor)
    return luminance(imresize(small / 255.0, factor))


def jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    """A grey picture (H, W), uint8, through a JPEG file of that quality, 1 to 100."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))
