"""Photographs that come with scikit-image and scikit-learn, for stand-in data."""

from PIL import Image

from common.data.passports import Package

# Each is a class of a stand-in.
PHOTOGRAPHS = (
    "astronaut.png", "chelsea.png", "china.jpg", "coffee.png", "flower.jpg",
    "hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg",
)  # fmt: skip
TRAIN_SHARE = 2 / 3  # of the width: crops of the left part are for training, of the rest for testing
SHIPPED = Package(name="skimage", folder="data"), Package(name="sklearn", folder="datasets/images")


def shipped_photograph(name: str) -> Image.Image:
    """
    Args:
        name: of the file, as 'astronaut.png' or 'china.jpg'.
    """
    folders = [folder for package in SHIPPED if (folder := package.locate())]
    return Image.open(next(folder / name for folder in folders if (folder / name).exists()))
