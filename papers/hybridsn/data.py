"""The three scenes, their reduction to principal components, the windows, and the two ways to split the pixels."""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common.base.errors import DataError, UsageError
from common.data.matlab import read_matrix
from common.data.passports import LocatedData
from common.data.splits import split_hash
from common.training.determinism import generator

if TYPE_CHECKING:  # scikit-learn takes longer to import than `--help` may last
    from sklearn.decomposition import PCA

CANDIDATES = 100  # maps of training blocks drawn for a disjoint split


@dataclass(frozen=True)
class SceneFiles:
    """What the files of a scene are called, and what must be in them."""

    editions: dict[str, tuple[str, str]]  # the files of the cube and of its ground truth
    cube_variable: str
    truth_variable: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]


SCENES = {
    "indian_pines": SceneFiles(
        editions={
            "official": ("Indian_pines_corrected.mat", "Indian_pines_gt.mat"),
            "tensorly": ("Indian_pines_corrected.npy", "Indian_pines_gt.npy"),
        },
        cube_variable="indian_pines_corrected",
        truth_variable="indian_pines_gt",
        shape=(145, 145, 200),
        classes=(
            "Alfalfa", "Corn-notill", "Corn-mintill", "Corn", "Grass-pasture", "Grass-trees", "Grass-pasture-mowed",
            "Hay-windrowed", "Oats", "Soybean-notill", "Soybean-mintill", "Soybean-clean", "Wheat", "Woods",
            "Buildings-Grass-Trees-Drives", "Stone-Steel-Towers",
        ),
    ),
    "pavia_university": SceneFiles(
        editions={"official": ("PaviaU.mat", "PaviaU_gt.mat")},
        cube_variable="paviaU",
        truth_variable="paviaU_gt",
        shape=(610, 340, 103),
        classes=(
            "Asphalt", "Meadows", "Gravel", "Trees", "Painted metal sheets", "Bare soil", "Bitumen",
            "Self-blocking bricks", "Shadows",
        ),
    ),
    "salinas": SceneFiles(
        editions={"official": ("Salinas_corrected.mat", "Salinas_gt.mat")},
        cube_variable="salinas_corrected",
        truth_variable="salinas_gt",
        shape=(512, 217, 204),
        classes=(
            "Broccoli green weeds 1", "Broccoli green weeds 2", "Fallow", "Fallow rough plow", "Fallow smooth",
            "Stubble", "Celery", "Grapes untrained", "Soil vineyard develop", "Corn senesced green weeds",
            "Lettuce romaine 4wk", "Lettuce romaine 5wk", "Lettuce romaine 6wk", "Lettuce romaine 7wk",
            "Vineyard untrained", "Vineyard vertical trellis",
        ),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """A hyperspectral image and its ground truth.

    Attributes:
        cube: (rows, columns, bands), as the file has it.
        truth: (rows, columns), int64: 0 where nothing is labelled, else the class from 1.
        classes: their names, class 1 first.
    """

    cube: np.ndarray
    truth: np.ndarray
    classes: tuple[str, ...]

    def arrays(self) -> list[dict]:
        """For the record: what the files held, whatever their format. sha256 of each array in C order."""
        parts = {"cube": self.cube, "truth": self.truth.astype(np.uint8)}
        return [
            {
                "array": name,
                "type": str(array.dtype),
                "shape": list(array.shape),
                "sha256": hashlib.sha256(np.ascontiguousarray(array)).hexdigest(),
            }
            for name, array in parts.items()
        ]


@dataclass(frozen=True)
class Split:
    """Which pixels are for training and which for testing, as numbers row * columns + column, sorted.

    Attributes:
        dropped: classes (from 1) that are not scored, because they are missing on one of the two sides.
    """

    train: np.ndarray
    test: np.ndarray
    dropped: tuple[int, ...] = ()

    def hash(self) -> str:
        """sha256 over both lists of pixels."""
        return split_hash(train=self.train, test=self.test)


# ---- the scenes -----------------------------------------------------------------------


def load(data: LocatedData) -> Scene:
    """The scene of the located files, or the stand-in.

    Raises:
        DataError: a file does not hold that scene.
    """
    if data.standin:
        return synthetic_scene()
    files = SCENES[data.dataset]
    cube_file, truth_file = files.editions[data.edition]
    cube = read_matrix(data.folder / cube_file, files.cube_variable, cube_file in data.vouched)
    truth = read_matrix(data.folder / truth_file, files.truth_variable, truth_file in data.vouched)
    return checked_scene(cube, truth, files)


def checked_scene(cube: np.ndarray, truth: np.ndarray, files: SceneFiles) -> Scene:
    """
    Raises:
        DataError: a wrong shape, a value that is not a number, or a label out of range.
    """
    if cube.shape != files.shape:
        raise DataError(f"{files.cube_variable}: has shape {cube.shape}, not {files.shape}.")
    if truth.shape != files.shape[:2]:
        raise DataError(f"{files.truth_variable}: has shape {truth.shape}, not {files.shape[:2]}.")
    if not np.isfinite(cube).all():
        raise DataError(f"{files.cube_variable}: holds values that are not numbers.")
    labels, last = np.unique(truth), len(files.classes)
    if not np.isin(labels, np.arange(last + 1)).all():
        said = f"labels from {labels[0]:g} to {labels[-1]:g}"
        raise DataError(f"{files.truth_variable}: has {said}, where whole numbers from 0 to {last} are expected.")
    return Scene(cube, truth.astype(np.int64), files.classes)


def synthetic_scene(side: int = 96, bands: int = 40, classes: int = 6, fields: int = 40) -> Scene:
    """A small made-up scene, always the same: fields of one crop each, spectra that mix with those of the
    other crops and of the neighbouring fields, uneven light, and noise. About a third of it is labelled."""
    draw = np.random.default_rng(2019)
    wavelength = np.linspace(0, 1, bands)
    centres, widths = draw.uniform(0, 1, (classes, 3, 1)), draw.uniform(0.1, 0.4, (classes, 3, 1))
    spectra = np.exp(-(((wavelength - centres) / widths) ** 2)).sum(axis=1)  # three broad peaks each

    rows, columns = np.indices((side, side))
    places = draw.uniform(0, side, (fields, 2))
    squared = (rows[..., None] - places[:, 0]) ** 2 + (columns[..., None] - places[:, 1]) ** 2
    field, nearest = squared.argmin(axis=2), np.sort(squared, axis=2)
    crop = (np.arange(fields) % classes)[field]

    share = draw.dirichlet(np.full(classes, 0.5), (side, side))
    own = 0.45
    mixed = own * spectra[crop] + (1 - own) * share @ spectra
    light = 1 + 0.3 * np.sin(rows / 9) * np.cos(columns / 13)
    cube = mixed * light[..., None] + draw.normal(0, 0.05, mixed.shape)

    inside = np.sqrt(nearest[..., 1]) - np.sqrt(nearest[..., 0]) > 3  # away from the edges of a field
    truth = np.where(inside & (field % 5 < 3), crop + 1, 0)
    return Scene(cube, truth, tuple(f"crop {number}" for number in range(1, classes + 1)))


# ---- principal components and windows ---------------------------------------------------


def principal_axes(cube: np.ndarray, components: int, fitted_on: np.ndarray | None) -> "PCA":
    """
    Args:
        cube: (rows, columns, bands).
        components: how many to keep.
        fitted_on: the pixels (N,) whose spectra give mean and axes; None for all, as in the authors' code.

    Raises:
        UsageError: more components than bands or pixels.
    """
    from sklearn.decomposition import PCA

    spectra = _spectra(cube)
    known = spectra if fitted_on is None else spectra[fitted_on]
    if components > min(known.shape):
        raise UsageError(f"--components {components}: at most {min(known.shape)} here.")
    # The full solver is exact and draws no random numbers.
    return PCA(components, whiten=True, svd_solver="full").fit(known)


def project(cube: np.ndarray, axes: "PCA") -> np.ndarray:
    """The components (rows, columns, components), float32, of a cube (rows, columns, bands)."""
    return axes.transform(_spectra(cube)).reshape(*cube.shape[:2], -1).astype(np.float32)


def _spectra(cube: np.ndarray) -> np.ndarray:
    return cube.reshape(-1, cube.shape[2]).astype(np.float64)


class Windows:
    """The windows around the pixels of a scene, cut when they are asked for.

    Args:
        bands: (rows, columns, components).
        side: of a window, odd. Beyond the edge of the scene there are zeros.
        device: where the windows are needed.
    """

    def __init__(self, bands: np.ndarray, side: int, device: str):
        margin = side // 2
        padded = F.pad(torch.from_numpy(bands), (0, 0, margin, margin, margin, margin)).to(device)
        self._columns = bands.shape[1]
        # A view: every window of the scene, and no memory of its own.
        self._all = padded.unfold(0, side, 1).unfold(1, side, 1).permute(0, 1, 3, 4, 2)

    def around(self, pixels: Tensor) -> Tensor:
        """Windows (N, 1, side, side, components) around the pixels (N,), numbered row * columns + column."""
        return self._all[pixels // self._columns, pixels % self._columns][:, None].contiguous()


# ---- splits -------------------------------------------------------------------------------


def random_split(truth: np.ndarray, share: float, seed: int) -> Split:
    """The paper's: a share of every class's pixels, drawn at random, for training; all others for testing.

    Args:
        truth: classes (rows, columns), 0 where nothing is labelled.

    Raises:
        UsageError: a share that leaves nothing to train or to test on.
    """
    from sklearn.model_selection import train_test_split

    labelled = np.flatnonzero(truth)
    state = int(torch.randint(2**31, (1,), generator=generator(seed, "split")))
    try:
        train, test = train_test_split(
            labelled, test_size=round(1 - share, 6), random_state=state, stratify=truth.flat[labelled]
        )
    except ValueError as error:
        raise UsageError(f"--training-share {share}: {error}") from None
    return Split(np.sort(train), np.sort(test))


def disjoint_split(truth: np.ndarray, share: float, window: int, blocks: int, seed: int) -> Split:
    """Training and test pixels from separate regions, so that no test window holds a training pixel.

    The scene is cut into blocks x blocks rectangles; about `share` of them are for training. Of `CANDIDATES`
    such choices, the one that leaves the most classes on both sides is taken, and among equals the one whose
    training pixels come nearest to the share. Only the ground truth is looked at, never a result.

    Args:
        truth: classes (rows, columns), 0 where nothing is labelled.
        window: side of the windows, in pixels.

    Raises:
        UsageError: no choice leaves pixels to test on.
    """
    region = block_numbers(truth.shape, blocks)
    wanted = max(1, round(share * blocks * blocks))
    best, best_rank = None, None
    for index in range(CANDIDATES):
        order = torch.randperm(blocks * blocks, generator=generator(seed, "regions", index=index)).numpy()
        train = np.flatnonzero(np.isin(region, order[:wanted]) & (truth > 0))
        if not len(train):
            continue
        split = apart_from(train, truth, window)
        rank = (len(classes_of(truth, split.test)), -abs(len(train) / np.count_nonzero(truth) - share))
        if best is None or rank > best_rank:
            best, best_rank = split, rank
    if best is None or not len(best.test):
        how = f"--training-share {share:g}, --blocks {blocks}"
        raise UsageError(f"{how}: no choice leaves pixels to test on with windows of {window}.")
    return best


def block_numbers(shape: tuple[int, int], blocks: int) -> np.ndarray:
    """For every pixel of a scene (rows, columns) which of blocks x blocks rectangles it lies in."""
    row, column = (np.arange(size) * blocks // size for size in shape)
    return row[:, None] * blocks + column


def apart_from(train: np.ndarray, truth: np.ndarray, window: int) -> Split:
    """The disjoint split with these training pixels: every pixel whose window reaches none of them is for testing.

    A training pixel whose class has no test pixel is kept. A test pixel whose class has no training pixel is dropped.
    `train` (n,) holds pixels numbered row * columns + column, `truth` classes (rows, columns).
    """
    labelled = np.flatnonzero(truth)
    far = labelled[~windows_hold(train, truth.shape, window).flat[labelled]]
    known = classes_of(truth, train)
    test = far[np.isin(truth.flat[far], list(known))]
    scored = classes_of(truth, test)
    return Split(train, test, tuple(sorted(classes_of(truth, labelled) - scored)))


def remaining(train: np.ndarray, truth: np.ndarray) -> Split:
    """The random split with these training pixels: all other labelled ones are tested. Arguments as in `apart_from`."""
    return Split(train, np.setdiff1d(np.flatnonzero(truth), train))


def windows_hold(train: np.ndarray, shape: tuple[int, int], window: int) -> np.ndarray:
    """Whether the window around each pixel holds a training pixel. Shape (rows, columns), bool."""
    from scipy.ndimage import distance_transform_cdt

    outside = np.ones(shape, dtype=bool)
    outside.flat[train] = False
    return distance_transform_cdt(outside, metric="chessboard") <= window // 2


def share_of_windows_with_training_pixels(split: Split, shape: tuple[int, int], window: int) -> float:
    """In percent of the test pixels."""
    return 100.0 * float(windows_hold(split.train, shape, window).flat[split.test].mean())


def classes_of(truth: np.ndarray, pixels: np.ndarray) -> set[int]:
    """The classes of these pixels."""
    return set(np.unique(truth.flat[pixels]).tolist())
