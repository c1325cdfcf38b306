"""`eval --image`: pictures of the users' own, restored by DnCNN."""

import errno
import re
import struct
import subprocess
import sys
import zlib
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from PIL.PngImagePlugin import PngInfo

from common.cli import restore_image
from common.cli.commands import main
from common.training.weights import load_weights, save_weights
from papers.dncnn.model import DnCNN
from tests.contract import helpers
from tests.contract.helpers import Ended, assert_told
from tests.papers.pictures import write_tiff


@pytest.fixture
def weights(tmp_path):
    """Of a network whose residual is zero."""
    model = DnCNN(17)
    torch.nn.init.zeros_(model.layers[-1].weight)
    torch.nn.init.zeros_(model.layers[-1].bias)
    return save_weights(model.state_dict(), tmp_path / "weights.safetensors")


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)


def restored(capsys, *words) -> Ended:
    with pytest.raises(SystemExit) as ended:
        main(["eval", "dncnn", *map(str, words)])
    return Ended(ended.value.code, *capsys.readouterr())


@pytest.mark.parametrize("shape", [(21, 34), (21, 34, 3)])
def test_a_picture_of_the_users_own_is_restored(tmp_path, capsys, monkeypatch, weights, shape):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(pixels(*shape)).save("holiday.png")
    ended = restored(capsys, "--weights", weights, "--image", "holiday.png")
    assert ended.code == 0 and "holiday-restored.png" in ended.err
    assert np.array_equal(np.asarray(Image.open("holiday-restored.png")), pixels(*shape))


def test_without_a_name_the_first_published_weights_restore_it_unless_the_default_variant_has_some(
    tmp_path, capsys, monkeypatch
):
    Image.fromarray(pixels(21, 34)).save(tmp_path / "a.png")

    def by(*variants: str) -> str:
        files = {
            save_weights(DnCNN(17).state_dict(), tmp_path / name, f"dncnn/{name}/seed-0"): name for name in variants
        }
        records = {file: SimpleNamespace(variant=name) for file, name in files.items()}
        monkeypatch.setattr(restore_image, "with_weights", lambda paper: records)
        ended = restored(capsys, "--image", tmp_path / "a.png", "--output", tmp_path / "b.png")
        assert ended.code == 0
        return ended.err.split()[-1]

    assert by("fig2-sgd-direct-bn", "sigma25-hour") == "sigma25-hour"
    assert by("sigma25-hour", "sigma25-authors") == "sigma25-authors"


def test_a_picture_lies_upright_and_loses_its_transparency(tmp_path, capsys, weights):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.fromarray(pixels(20, 30, 4)).save(tmp_path / "a.png", exif=exif)
    ended = restored(capsys, "--weights", weights, "--image", tmp_path / "a.png", "--output", tmp_path / "b.tiff")
    assert ended.code == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b.tiff")), np.rot90(pixels(20, 30, 4)[..., :3], -1))


def with_palette(path, **how) -> np.ndarray:
    """Of 8 x 8 colours; what it shows."""
    picture = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    picture.putpalette(pixels(64, 3).tobytes())
    picture.save(path, **how)
    return pixels(64, 3).reshape(8, 8, 3)


@pytest.mark.parametrize("transparency", [bytes(range(64)), 5, None], ids=["several", "one", "none"])
@pytest.mark.filterwarnings("error")
def test_a_palette_loses_its_transparency_without_a_word(tmp_path, capsys, weights, transparency):
    shown = with_palette(tmp_path / "a.png", **({} if transparency is None else {"transparency": transparency}))
    ended = restored(capsys, "--weights", weights, "--image", tmp_path / "a.png", "--output", tmp_path / "b.png")
    assert_told(ended, 0, "b.png: ")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b.png")), shown)


@pytest.mark.parametrize("name", ["b.png", "b.TIF", "b.tiff", "b.bmp"])
def test_what_is_written_has_every_pixel_as_it_was_restored(tmp_path, capsys, weights, name):
    Image.fromarray(pixels(21, 34, 3)).save(tmp_path / "a.png")
    words = ["--weights", weights, "--image", tmp_path / "a.png", "--output", tmp_path / "new" / name]
    assert restored(capsys, *words).code == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "new" / name)), pixels(21, 34, 3))


@pytest.mark.parametrize("name", ["b.jpg", "b.JPEG"])
def test_jpeg_is_written_finely_and_with_whole_colour(tmp_path, capsys, weights, name):
    Image.fromarray(pixels(21, 34, 3)).save(tmp_path / "a.png")
    Image.fromarray(pixels(21, 34, 3)).save(tmp_path / "right.jpg", quality=95, subsampling=0)
    words = ["--weights", weights, "--image", tmp_path / "a.png", "--output", tmp_path / name]
    assert restored(capsys, *words).code == 0
    assert (tmp_path / name).read_bytes() == (tmp_path / "right.jpg").read_bytes()


def colour_profile(space: str) -> bytes:
    """As much of an ICC profile as anybody reads here: its head."""
    return struct.pack(">I12s4s20s", 128, b"", space.encode(), b"").ljust(128, b"\0")


@pytest.mark.parametrize("name", ["b.png", "b.tif", "b.jpg"])
@pytest.mark.parametrize(("space", "shape"), [("RGB ", (9, 9, 3)), ("GRAY", (9, 9))])
def test_the_colour_profile_is_handed_on(tmp_path, capsys, weights, name, space, shape):
    Image.fromarray(pixels(*shape)).save(tmp_path / "a.png", icc_profile=colour_profile(space))
    words = ["--weights", weights, "--image", tmp_path / "a.png", "--output", tmp_path / name]
    assert_told(restored(capsys, *words), 0, f"{name}: ")
    assert Image.open(tmp_path / name).info["icc_profile"] == colour_profile(space)


def test_of_a_cameras_jpeg_the_picture_is_taken_not_the_preview(tmp_path, capsys, weights):
    preview = Image.new("L", (4, 4))
    Image.fromarray(pixels(16, 24)).save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[preview])
    words = ["--weights", weights, "--image", tmp_path / "a.jpg", "--output", tmp_path / "b.png"]
    assert_told(restored(capsys, *words), 0, "b.png: ")
    assert Image.open(tmp_path / "b.png").size == (24, 16)


def test_a_colour_profile_that_is_left_out_is_told(tmp_path, capsys, weights):
    tell = partial(restored, capsys, "--weights", weights, "--image")
    Image.fromarray(pixels(9, 9, 3)).save(tmp_path / "a.png", icc_profile=colour_profile("RGB "))
    ended = tell(tmp_path / "a.png", "--output", tmp_path / "b.bmp")
    assert_told(ended, 0, f"b.bmp: .bmp holds no colour profile; that of {tmp_path / 'a.png'} is left out.")
    Image.fromarray(pixels(9, 9, 4), "CMYK").save(tmp_path / "a.tif", icc_profile=colour_profile("CMYK"))
    ended = tell(tmp_path / "a.tif", "--output", tmp_path / "c.png")
    assert_told(ended, 0, "a.tif: its colour profile is not for RGB and is left out.")
    assert "icc_profile" not in Image.open(tmp_path / "c.png").info


@pytest.mark.filterwarnings("error")
def test_a_picture_above_pils_limit_is_read_and_the_limit_stays(tmp_path, capsys, monkeypatch, weights):
    Image.fromarray(pixels(21, 34)).save(tmp_path / "a.png")
    for limit in (700, 100):  # above the first PIL warns, above twice the second it refuses
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        words = ["--weights", weights, "--image", tmp_path / "a.png", "--output", tmp_path / "b.png"]
        assert_told(restored(capsys, *words), 0, "b.png: ")
        assert limit == Image.MAX_IMAGE_PIXELS
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    (tmp_path / "a.png").write_bytes(b"no picture")
    assert_told(restored(capsys, *words), 2, "is not a picture")
    assert Image.MAX_IMAGE_PIXELS == 100


def test_a_picture_that_no_memory_holds_ends_with_5(tmp_path, capsys, monkeypatch, weights):
    def load(_):
        raise MemoryError

    Image.fromarray(pixels(21, 34)).save(tmp_path / "a.png")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    words = ["--weights", weights, "--image", tmp_path / "a.png", "--output", tmp_path / "b.png"]
    assert_told(restored(capsys, *words), 5, "a.png does not fit into memory.")


def test_a_large_picture_shows_how_far_it_is_and_one_of_one_tile_nothing(tmp_path, capsys, monkeypatch, weights):
    monkeypatch.setattr("common.base.progress.QUIET_LINE_EVERY_S", -1.0)  # a line after every tile
    for shape in ((12, 1500, 3), (20, 30, 3)):
        Image.fromarray(pixels(*shape)).save(tmp_path / "a.png")
        words = ["--weights", weights, "--image", tmp_path / "a.png", "--output", tmp_path / "b.png"]
        ended = restored(capsys, *words)
        shown = re.findall(r"^restoring: (\d+)%, [\d,]+ values/s, [\d.]+ (?:ms|s|min|h) left$", ended.err, re.MULTILINE)
        assert ended.code == 0 and len(ended.complaint) == len(shown) + 1
        assert shown == (["11", "23", "33", "45", "56", "67", "78", "89", "100"] if shape[1] > 512 else [])
        assert np.array_equal(np.asarray(Image.open(tmp_path / "b.png")), pixels(*shape))


def test_a_picture_is_restored_by_the_variant_that_the_weights_name(tmp_path, capsys, weights):
    save_weights(load_weights(weights), weights, "dncnn/sigma50-printed/seed-1")
    Image.fromarray(pixels(9, 9)).save(tmp_path / "a.png")
    tell = partial(
        restored, capsys, "--weights", weights, "--image", tmp_path / "a.png", "--output", tmp_path / "b.png"
    )
    assert_told(tell(), 0, "restored by dncnn / sigma50-printed")
    assert_told(tell("--variant", "sigma25-printed"), 2, "weights of dncnn / sigma50-printed, not of dncnn / sigma25-")


def deep(path):
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(path)


def deep_colour(path):
    """As no PIL writes it: 16 bits for each of three channels."""
    parts = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0), zlib.compress(bytes(7)), b""
    chunks = [name + part for name, part in zip((b"IHDR", b"IDAT", b"IEND"), parts, strict=True)]
    framed = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(framed))


def deep_tiff(path):
    write_tiff(path, [16, 16, 16])


def signed_tiff(path):
    write_tiff(path, [8], form=2)


def float_tiff(path):
    write_tiff(path, [32], form=3)


def float_tiff_in_colour(path):
    write_tiff(path, [32, 32, 32], form=3)


def half_float_tiff(path):
    write_tiff(path, [16], form=3)


def five_band_tiff(path):
    write_tiff(path, [8] * 5)


def many_band_tiff(path):
    write_tiff(path, [8] * 48)


def two_band_tiff(path):
    write_tiff(path, [8] * 2)


def wide_bmp(path):
    Image.fromarray(pixels(9, 9, 3)).save(path, "BMP")
    path.write_bytes(path.read_bytes()[:18] + struct.pack("<I", 0xF0000001) + path.read_bytes()[22:])


def wide_tiff(path):
    write_tiff(path, [8], width=0xF0000001)


def wide_ppm(path):
    path.write_bytes(b"P6 4000000000 1 255\n\1\2\3")


def deep_ppm(path):
    path.write_bytes(b"P6 2 1 1023\n" + bytes(12))


def deep_plain_ppm(path):
    path.write_bytes(b"P3 1 1 65535\n1 2 3\n")


def animated(path):
    Image.fromarray(pixels(9, 9, 3)).save(path, "GIF", save_all=True, append_images=[Image.new("RGB", (9, 9))])


def animated_png(path):
    Image.fromarray(pixels(9, 9, 3)).save(path, save_all=True, append_images=[Image.new("RGB", (9, 9))])


def of_two_pages(path):
    Image.fromarray(pixels(9, 9)).save(path, "TIFF", save_all=True, append_images=[Image.new("L", (9, 9))])


def folder(path):
    path.mkdir()


def other_format(path):
    Image.fromarray(pixels(9, 9)).save(path, "TGA")


def no_picture(path):
    path.write_bytes(b"no picture")


def cut(path):
    Image.fromarray(pixels(50, 50)).save(path)
    path.write_bytes(path.read_bytes()[:500])


def missing(path):
    pass


@pytest.mark.parametrize(
    ("make", "said"),
    [(missing, "no such picture"), (no_picture, "is not a picture"), (cut, "cannot be read as a picture"),
     (deep, "more than 8 bits per channel"), (deep_colour, "more than 8 bits per channel"),
     (deep_tiff, "is a TIFF with 3 channels of 16-bit unsigned integers. Save it in grey or RGB, with 8 bits"),
     (signed_tiff, "is a TIFF with 1 channel of 8-bit signed integers."),
     (float_tiff, "is a TIFF with 1 channel of 32-bit floating-point numbers."),
     (float_tiff_in_colour, "is a TIFF with 3 channels of 32-bit floating-point numbers."),
     (half_float_tiff, "is a TIFF with 1 channel of 16-bit floating-point numbers."),
     (five_band_tiff, "is a TIFF with 5 channels of 8-bit unsigned integers."),
     (many_band_tiff, "is a TIFF with 48 channels of 8-bit unsigned integers."),
     (two_band_tiff, "is a kind of TIFF that is not read here (2 channels of 8-bit unsigned integers)."),
     (wide_bmp, "cannot be read as a picture"), (wide_tiff, "cannot be read as a picture"),
     (wide_ppm, "cannot be read as a picture"),
     (deep_ppm, "more than 8 bits per channel"), (deep_plain_ppm, "more than 8 bits per channel"),
     (animated, "holds 2 pictures"), (animated_png, "holds 2 pictures"), (of_two_pages, "holds 2 pictures"),
     (folder, "a.png is a folder: --image takes one picture."),
     (other_format, "in a format that is read here (BMP, GIF, ")],
)  # fmt: skip
def test_a_picture_that_cannot_be_used_ends_with_2(tmp_path, capsys, weights, make, said):
    make(tmp_path / "a.png")
    words = ["--weights", weights, "--image", tmp_path / "a.png", "--output", tmp_path / "b.png"]
    assert_told(restored(capsys, *words), 2, said)
    assert not (tmp_path / "b.png").exists()


def long_text(path):
    text = PngInfo()
    text.add_text("plain", "x" * 2_000_000)
    text.add_text("compressed", "x" * 80_000_000, zip=True)
    text.add_itxt("XML:com.adobe.xmp", "y" * 2_000_000, zip=True)
    Image.fromarray(pixels(9, 9)).save(path, pnginfo=text)


def long_profile(path):
    Image.fromarray(pixels(9, 9)).save(path, icc_profile=colour_profile("GRAY") + bytes(2_000_000))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("make", [long_text, long_profile])
def test_a_png_with_much_text_or_a_long_profile_is_read(tmp_path, capsys, weights, make):
    limits = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    make(tmp_path / "a.png")
    words = ["--weights", weights, "--image", tmp_path / "a.png", "--output", tmp_path / "b.tif"]
    assert_told(restored(capsys, *words), 0, "b.tif: ")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b.tif")), pixels(9, 9))
    assert limits == (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY)


def next_page_of(content: bytes) -> int:
    """Where the first page of a TIFF says where the next one is."""
    (first,) = struct.unpack_from("<I", content, 4)
    return first + 2 + 12 * struct.unpack_from("<H", content, first)[0]


def beyond_the_end(content: bytes) -> bytes:
    place = next_page_of(content)
    return content[:place] + struct.pack("<I", len(content) + 1000) + content[place + 4 :]


def cut_in_the_second(content: bytes) -> bytes:
    return content[: struct.unpack_from("<I", content, next_page_of(content))[0] + 10]


def rubbish_in_the_second(content: bytes) -> bytes:
    return cut_in_the_second(content)[:-8] + b"\xaa" * 200


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("damage", [beyond_the_end, cut_in_the_second, rubbish_in_the_second])
def test_a_sound_page_before_a_damaged_one_is_restored(tmp_path, capsys, weights, damage):
    of_two_pages(tmp_path / "a.tif")
    (tmp_path / "a.tif").write_bytes(damage((tmp_path / "a.tif").read_bytes()))
    words = ["--weights", weights, "--image", tmp_path / "a.tif", "--output", tmp_path / "b.png"]
    assert_told(restored(capsys, *words), 0, "a.tif: what follows its first picture is damaged and is left out.")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b.png")), pixels(9, 9))


def test_damaged_exif_data_is_passed_over(tmp_path, capsys, weights):
    Image.fromarray(pixels(9, 9)).save(tmp_path / "a.png", exif=b"no EXIF data")
    words = ["--weights", weights, "--image", tmp_path / "a.png", "--output", tmp_path / "b.png"]
    assert_told(restored(capsys, *words), 0, "a.png: its EXIF data is damaged: whether it lies upright is not known.")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b.png")), pixels(9, 9))


SHALLOW_PPM = [b"P6 1 1 255\n\1\2\3", b"P6 1 1 15\n\1\2\3", b"P5 1 1 255\n\1", b"P1 1 1 1", b"P3 1 1 9 1 2 3"]


@pytest.mark.parametrize("content", SHALLOW_PPM)
def test_a_ppm_of_no_more_than_8_bits_is_read(tmp_path, capsys, weights, content):
    (tmp_path / "a.ppm").write_bytes(content)
    words = ["--weights", weights, "--image", tmp_path / "a.ppm", "--output", tmp_path / "b.png"]
    assert restored(capsys, *words).code == 0


def never(*_):
    raise AssertionError("restored before the name was looked at")


def test_slips_of_image_end_with_2_and_write_nothing(tmp_path, capsys, monkeypatch, weights):
    monkeypatch.setattr("papers.dncnn.eval.denoise", never)
    image = tmp_path / "a.png"
    Image.fromarray(pixels(9, 9)).save(image)
    before = image.read_bytes()
    tell = partial(restored, capsys, "--image", image)
    assert_told(tell("--weights", weights, "--output", image), 2, "that is the picture itself")
    for name in ("b.xyz", "b.ico", "b.gif", "b.webp", "b.psd", "b"):  # some would be smaller, or of fewer colours
        allowed = "a picture is written as .png, .tif, .tiff, .bmp, .jpg, .jpeg only."
        assert_told(tell("--weights", weights, "--output", tmp_path / name), 2, f"{name}: {allowed}")
    assert_told(tell("--weights", weights, "--json"), 2, "--json and --data-dir do not go with --image.")
    assert_told(tell("--weights", weights, "--data-dir", tmp_path), 2, "--json and --data-dir do not go with --image.")
    assert_told(tell("--weights", weights, "--weights", weights), 2, "--image takes one --weights file.")
    assert_told(tell("--weights", tmp_path / "none"), 2, "no such weights file")
    assert_told(tell("--weights", weights, "--variant", "blind-printed"), 2, "weights of another model")
    assert_told(tell("--variant", "three-tasks"), 2, "No weights of dncnn / three-tasks are published.")
    assert image.read_bytes() == before and len(list(tmp_path.iterdir())) == 2


def test_a_picture_too_large_for_a_format_is_told_before_the_work(tmp_path, capsys, monkeypatch, weights):
    monkeypatch.setattr("papers.dncnn.eval.denoise", never)
    Image.new("L", (66_000, 1)).save(tmp_path / "a.png")
    words = ["--weights", weights, "--image", tmp_path / "a.png", "--output", tmp_path / "b.jpg"]
    assert_told(restored(capsys, *words), 2, "b.jpg: this picture is too large for .jpg. Use .png.")


def test_only_a_file_that_output_names_is_overwritten(tmp_path, capsys, monkeypatch, weights):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(pixels(9, 9)).save("a.png")
    (tmp_path / "a-restored.png").write_bytes(b"dear")
    tell = partial(restored, capsys, "--weights", weights, "--image", "a.png")
    assert_told(tell(), 2, "a-restored.png already exists. Name a file with --output")
    assert (tmp_path / "a-restored.png").read_bytes() == b"dear"
    assert tell("--output", "a-restored.png").code == 0
    assert np.array_equal(np.asarray(Image.open("a-restored.png")), pixels(9, 9))


def read_only(**_):
    raise OSError(errno.EROFS, "Read-only file system")


def test_where_nothing_can_be_written_is_told_before_the_work(tmp_path, capsys, monkeypatch, weights):
    monkeypatch.setattr("papers.dncnn.eval.denoise", never)
    Image.fromarray(pixels(9, 9)).save(tmp_path / "a.png")
    (tmp_path / "b.png").mkdir()
    tell = partial(restored, capsys, "--weights", weights, "--image", tmp_path / "a.png", "--output")
    assert_told(tell(tmp_path / "b.png"), 2, "b.png: that is a folder. Name a file.")
    advice = "Name another place with --output."
    assert_told(tell(tmp_path / "a.png" / "c.png"), 5, f"c.png: Not a directory. {advice}")
    assert_told(tell(tmp_path / f"{'c' * 300}.png"), 5, f"c.png: File name too long. {advice}")
    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    assert_told(tell(tmp_path / "c.png"), 5, f"c.png: Read-only file system. {advice}")
    assert_told(tell(tmp_path / "new" / "c.png"), 5, f"c.png: Read-only file system. {advice}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png", "weights.safetensors"]


def test_a_disk_that_is_full_in_the_end_is_told_as_it_is(tmp_path, capsys, monkeypatch, weights):
    def fsync(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    Image.fromarray(pixels(9, 9)).save(tmp_path / "a.png")
    monkeypatch.setattr("os.fsync", fsync)
    words = ["--weights", weights, "--image", tmp_path / "a.png", "--output", tmp_path / "b.png"]
    said = f"{tmp_path / 'b.png'}: No space left on device. Name another place with --output.\n"
    assert restored(capsys, *words) == Ended(5, "", said)


def test_output_may_be_a_link_or_have_the_longest_name(tmp_path, capsys, weights):
    Image.fromarray(pixels(9, 9)).save(tmp_path / "a.png")
    (tmp_path / "link.png").symlink_to("new/b.png")
    tell = partial(restored, capsys, "--weights", weights, "--image", tmp_path / "a.png", "--output")
    for name in ("link.png", "n" * 251 + ".png"):
        assert_told(tell(tmp_path / name), 0, f"{name}: ")
        assert np.array_equal(np.asarray(Image.open(tmp_path / name)), pixels(9, 9))
    assert (tmp_path / "link.png").is_symlink()
    (tmp_path / "itself.png").symlink_to("a.png")
    assert_told(tell(tmp_path / "itself.png"), 2, "itself.png: that is the picture itself.")


LARGE = """
import resource, torch
from common.training.determinism import generator
from papers.dncnn.eval import restore
from papers.dncnn.model import DnCNN
from papers.dncnn.train import Recipe
picture = torch.randint(256, (4000, 6000, 3), generator=generator(0, "large"), dtype=torch.uint8).numpy()
assert restore(DnCNN(3).state_dict(), Recipe(depth=3), picture, "cpu").shape == (4000, 6000, 3)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts memory in kilobytes, as Linux does")
def test_a_large_photograph_fits_into_4_gb():
    """With three layers: more of them take longer and no more memory, since two maps are alive at a time."""
    done = subprocess.run([sys.executable, "-c", LARGE], cwd=helpers.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) / 1e6 < 4
