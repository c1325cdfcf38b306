"""Pictures that Pillow does not write."""

import struct
from pathlib import Path


def write_tiff(path: Path, bits: list[int], form: int = 1, width: int = 9) -> None:
    """As no PIL writes it: 9 rows of pixels whose samples have these bit depths and are all of one form."""
    colours = 2 if len(bits) == 3 else 1
    inline = len(bits) <= 2  # the depths fit into their tag
    depths = struct.pack(f"<{len(bits)}H", *bits)
    place = struct.unpack("<I", depths.ljust(4, b"\0"))[0] if inline else 200
    tags = [(256, 4, 1, width), (257, 3, 1, 9), (258, 3, len(bits), place), (259, 3, 1, 1), (262, 3, 1, colours),
            (273, 4, 1, 300), (277, 3, 1, len(bits)), (278, 3, 1, 9), (339, 3, 1, form)]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries
    path.write_bytes((head.ljust(200, b"\0") + depths).ljust(300, b"\0") + bytes(81 * sum(bits) // 8))
