"""Writing files that are never half written."""

import contextlib
import hashlib
import os
import re
import tempfile
from pathlib import Path

from common.base.errors import MachineError

GO_ON = "What was saved before is intact; run again to go on."
ANOTHER_PLACE = "Name another place with --output."


def fill(text: str, begin: str, end: str, block: str) -> str:
    """The text with what is between two markers replaced by a block; unchanged if it has no such markers."""
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    return pattern.sub(lambda _: f"{begin}\n\n{block}\n\n{end}", text)


def require_writable(path: Path, advice: str = GO_ON) -> None:
    """Find out now, before long work, whether a file can be written; nothing is left behind.

    Raises:
        MachineError: its folder, or the one that would hold that, takes no files.
    """
    try:
        folder = next(parent for parent in Path(os.path.realpath(path)).parents if parent.exists())
        with tempfile.TemporaryFile(dir=folder):  # not os.access, which knows nothing of full or foreign disks
            pass
    except OSError as error:
        raise MachineError(f"{path}: {error.strerror}. {advice}") from None


def write_whole(path: Path, content: bytes, advice: str = GO_ON) -> None:
    """Write a file so that at every moment either the old one or the new one is there, whole. A link stays a link.

    Args:
        advice: what to do where it cannot be written.

    Raises:
        MachineError: the disk is full, the folder read-only.
    """
    target = Path(os.path.realpath(path))
    # Short, since the name itself may be as long as a name can be, and another for each name.
    temporary = target.with_name(f".{target.name[:20]}-{hashlib.sha256(os.fsencode(target)).hexdigest()[:8]}.writing")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except OSError as error:
        with contextlib.suppress(OSError):  # on a read-only disk even this fails
            temporary.unlink()
        raise MachineError(f"{path}: {error.strerror}. {advice}") from None
