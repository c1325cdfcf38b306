"""What common/ says of its types is so, by mypy."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CLEAN_ROOMS = ("base",)  # a room that has lost its last error is added here, and stays

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("mypy"), reason="mypy is not installed")


def mypy(*words: str | Path) -> list[str]:
    """The errors that mypy finds, one a line."""
    command = [sys.executable, "-m", "mypy", "--no-pretty", "--no-error-summary", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if ": error: " in line]


@pytest.fixture(scope="module")
def errors():
    return mypy()


@pytest.mark.parametrize("room", CLEAN_ROOMS)
def test_room_has_no_type_error(errors, room):
    assert (ROOT / "common" / room).is_dir()
    assert [error for error in errors if error.startswith(f"common/{room}/")] == []


FAULTS = """
import pydantic

def untyped():
    return 1 + "1"  # operator

def optional(x: int = None): ...  # assignment

class Frozen(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True)
    x: float

Frozen(x=1).x = 2  # misc
1  # type: ignore
print(0 == "0")  # comparison-overlap
"""


def test_the_settings_find_what_they_are_there_for(tmp_path):
    (tmp_path / "faults.py").write_text(FAULTS)
    kinds = [error.rpartition("[")[2] for error in mypy(tmp_path / "faults.py")]
    assert kinds == ["operator]", "assignment]", "misc]", "unused-ignore]", "comparison-overlap]"]
