"""How the pictures that DnCNN-3 restores are degraded: bicubic resizing as in Matlab, and JPEG (Sec. III-E)."""

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

    Where it shrinks, the kernel is widened by the same factor, against aliasing; weights
    add up to one; beyond the edge the picture is mirrored, the edge pixel first.

    Args:
        picture: (H, W) or (H, W, 3), uint8 or float.

    Returns:
        ceil(scale H) rows and ceil(scale W) columns of the same kind; uint8 is rounded and saturated after
        each direction, rows first, float may leave the range of the input.
    """
    resized = picture
    for axis in (0, 1):
        weights = resizing_weights(picture.shape[axis], scale)
        resized = np.moveaxis(np.tensordot(weights, resized.astype(np.float64), axes=(1, axis)), 0, axis)
        if picture.dtype == np.uint8:
            resized = np.clip(np.floor(resized + 0.5), 0, 255).astype(np.uint8)
    return resized


def resizing_weights(length: int, scale: float) -> np.ndarray:
    """What every new pixel of a row takes from every old one. Shape (ceil(scale * length), length)."""
    stretch = max(1.0, 1 / scale)
    taps = math.ceil(4 * stretch) + 2
    centres = (np.arange(math.ceil(scale * length)) + 0.5) / scale - 0.5
    where = np.floor(centres - 2 * stretch)[:, None].astype(int) + np.arange(taps)
    kernel = cubic((centres[:, None] - where) / stretch)
    kernel /= kernel.sum(axis=1, keepdims=True)
    where %= 2 * length  # mirrored, again and again where the row is short
    weights = np.zeros((len(centres), length))
    np.add.at(weights, (np.arange(len(centres))[:, None], np.minimum(where, 2 * length - 1 - where)), kernel)
    return weights


def crop_to_multiple(picture: np.ndarray, factor: int) -> np.ndarray:
    """Without the last rows and columns that `factor` does not divide."""
    height, width = (side - side % factor for side in picture.shape[:2])
    return picture[:height, :width]


def small_and_large_again(picture: np.ndarray, factor: int) -> np.ndarray:
    """Luminance of a picture shrunk to 8-bit pixels and enlarged: the input of super-resolution.
    As in the authors' code, a grey picture is rounded to 8 bits again after it is enlarged, a colour one is not.

    Args:
        picture: (H, W) or (H, W, 3), uint8, its sides multiples of `factor`.

    Returns:
        (H, W), float64, about 0 to 1.
    """
    small = imresize(picture, 1 / factor)
    return imresize(small, factor) / 255.0 if picture.ndim == 2 else luminance(imresize(small / 255.0, factor))


def jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    """A grey picture (H, W), uint8, through a JPEG file of that quality, 1 to 100."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))
