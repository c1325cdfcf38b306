"""What every reader of a user's pictures refuses and takes, whatever the paper."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from common.base.errors import DataError
from common.data import image_folder
from papers.dncnn import data
from papers.dscmr import features
from tests.papers.pictures import write_tiff

READERS = {"ImageFolder": image_folder.read_picture, "DnCNN": data._read, "DSCMR": features._picture}
LARGE = 3_000_000  # characters: more than Pillow takes


def signed(path: Path) -> None:
    write_tiff(path, [8], form=2)


def deep(path: Path) -> None:
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(path, "PNG")


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(("write", "why"), [(signed, "8-bit signed integers"), (deep, "more than 8 bits per channel")])
def test_samples_that_would_be_read_as_another_picture_are_refused(tmp_path, reader, write, why):
    file = tmp_path / "picture"
    write(file)
    with pytest.raises(DataError, match=f"picture cannot be read as a picture .*{why}"):
        READERS[reader](file)


@pytest.mark.parametrize("reader", READERS)
def test_a_picture_with_a_long_text_is_read(tmp_path, reader):
    file, text = tmp_path / "picture.png", PngImagePlugin.PngInfo()
    text.add_text("comment", "a" * LARGE, zip=True)
    Image.fromarray(np.full((8, 9, 3), 7, np.uint8)).save(file, pnginfo=text)
    assert np.all(np.asarray(READERS[reader](file)) == 7)
