"""Photographs that come with scikit-image and scikit-learn, for stand-in data."""

from PIL import Image

from common.data.passports import Package

SHIPPED = Package(name="skimage", folder="data"), Package(name="sklearn", folder="datasets/images")


def shipped_photograph(name: str) -> Image.Image:
    """
    Args:
        name: of the file, as 'astronaut.png' or 'china.jpg'.
    """
    folders = [folder for package in SHIPPED if (folder := package.locate())]
    return Image.open(next(folder / name for folder in folders if (folder / name).exists()))
