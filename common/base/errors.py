"""Errors a user can cause, each with the exit code that the README documents.

The command line prints the message (one or two lines that say what to do) and
exits with `code`; anything else that is raised is a bug and shows a traceback.
"""

import contextlib
import pickle
import struct
import sys
import zlib
from collections.abc import Iterable, Iterator

# Where it is not a MemoryError: PyTorch's allocator, C++, the operating system; and PyTorch, of more bytes than it can
# count.
MEMORY_IS_FULL = (
    "can't allocate memory", "std::bad_alloc", "Cannot allocate memory", "Storage size calculation overflowed",
    "Overflow when unpacking",
)  # fmt: skip
NOT_LOADED = "failed to map segment"

# What readers of files that others wrote raise, in Python or in C, where one is damaged or not of their kind; to these
# comes what only one library knows. MemoryError is not among them: the file may be sound, and the machine too small.
DAMAGED = (
    OSError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError, RuntimeError,
    SyntaxError, EOFError, struct.error, zlib.error, pickle.UnpicklingError,
)  # fmt: skip


class UserError(Exception):
    code = 2


class UsageError(UserError):
    """Unknown paper, variant, option; a value that makes no sense; a broken paper.yaml."""

    code = 2


class CheckFailed(UserError):
    """A check of `--check`, `verify` or `publish` failed."""

    code = 1


class DataError(UserError):
    """Data absent, or not what its passport says."""

    code = 3


class DataAbsent(DataError):
    """No copy of the data was found and none can be fetched: only this may be replaced by a stand-in."""


class NumbersError(UserError):
    """NaN or Inf."""

    code = 4


class MachineError(UserError):
    """Disk or memory full, read-only folder, no such device, the same seed already running."""

    code = 5


class SomeFailed(UserError):
    """Some of several papers or runs; the code is that of the first that failed."""

    def __init__(self, first: UserError, message: str):
        super().__init__(message)
        self.code = first.code


class Interrupted(UserError):
    """SIGINT or SIGTERM; progress is saved."""

    def __init__(self, signal_number: int, message: str):
        super().__init__(message)
        self.code = 128 + signal_number


def nearest(word: str, words: Iterable[str]) -> str:
    """' Did you mean X?' where one of `words` begins with `word` or is close to it, else ''."""
    import difflib

    known = list(words)
    close = [longer for longer in known if word and longer.startswith(word)]
    close = close or difflib.get_close_matches(word, known, n=1)
    return f" Did you mean {close[0]}?" if close else ""


@contextlib.contextmanager
def memory_told() -> Iterator[None]:
    """
    Raises:
        MachineError: what is done inside does not fit into the memory of the machine or of its GPU.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError, ImportError) as error:
        gpu = getattr(sys.modules.get("torch"), "OutOfMemoryError", ())  # torch is not imported for this
        if isinstance(error, gpu):
            raise MachineError("The GPU's memory is full. Use a smaller --batch-size, or --device cpu.") from None
        if isinstance(error, MemoryError) or any(words in str(error) for words in MEMORY_IS_FULL):
            raise MachineError(
                "The memory is full. Use a smaller --batch-size or picture, a higher `ulimit -v`, or a larger machine."
            ) from None
        if isinstance(error, ImportError) and NOT_LOADED in str(error):
            raise MachineError(f"{error}: the memory is too small for it, or its disk mounted noexec.") from None
        raise
