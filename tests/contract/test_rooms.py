"""The rooms of common/, and which of them block a resume: imports go downwards only."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from common.base import paths
from common.claims.papers import find_papers
from common.training.provenance import source_files

ROOMS = ("cli", "publishing", "pages", "claims", "training", "data", "base")  # each may import those after it
TRAINING_SIDE = ("training", "data", "base")
COMMON = paths.ROOT / "common"


def imported(file: Path) -> list[str]:
    """The modules that a file imports, wherever in it; of `from a import b` both a and a.b."""
    names = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def arrows(files: list[Path]) -> set[tuple[str, str, str]]:
    """Every import from room to room: the importing file, its room, the room imported."""
    found = set()
    for file in files:
        for name in imported(file):
            parts = name.split(".")
            if parts[0] == "common" and len(parts) > 1:
                found.add((str(file.relative_to(COMMON)), file.relative_to(COMMON).parts[0], parts[1]))
    return found


def points_up(room: str, other: str) -> bool:
    return ROOMS.index(other) < ROOMS.index(room)


def test_no_arrow_points_up():
    files = [file for room in ROOMS for file in (COMMON / room).rglob("*.py")]
    found = arrows(files)
    assert len({(room, other) for _, room, other in found if room != other}) > 10
    assert [arrow for arrow in found if points_up(arrow[1], arrow[2])] == []


def test_an_arrow_that_points_up_would_be_noticed():
    assert points_up("base", "cli") and points_up("training", "claims")
    assert not points_up("claims", "training") and not points_up("data", "data")


def test_every_module_is_in_a_room_and_rooms_have_nothing_to_hide():
    outside = {file.name for file in COMMON.glob("*.py")}
    assert outside == {"__init__.py", "__main__.py"}
    assert {folder.name for folder in COMMON.iterdir() if folder.is_dir() and folder.name != "__pycache__"} == set(
        ROOMS
    )
    for room in ROOMS:  # what an __init__.py imported would fall out of the hash of a paper's sources
        assert (COMMON / room / "__init__.py").read_text() == ""


def test_no_paper_imports_another():
    for paper in find_papers():
        for file in (paths.PAPERS / paper).rglob("*.py"):
            others = [name for name in imported(file) if name.startswith("papers.") and name.split(".")[1] != paper]
            assert others == [], file


def test_weights_are_read_in_one_place_which_says_what_is_wrong_with_a_file():
    files = [*(COMMON).rglob("*.py"), *paths.PAPERS.rglob("*.py"), paths.ROOT / "hubconf.py"]
    opened_by = {file for file in files for name in imported(file) if name.split(".")[0] == "safetensors"}
    assert opened_by == {COMMON / "training" / "weights.py"}


@pytest.mark.parametrize("paper", find_papers())
def test_only_the_training_side_blocks_a_resume(paper):
    """A word changed in a verdict or on a page keeps no training from going on."""
    files = [file.relative_to(COMMON) for file in source_files(paper) if file.is_relative_to(COMMON)]
    assert {file.parts[0] for file in files} <= set(TRAINING_SIDE)
    assert {Path("training/run.py"), Path("data/passports.py"), Path("base/errors.py")} <= set(files)


HEAVY = {"sklearn", "scipy.stats", "matplotlib", "torchvision", "pandas", "skimage", "h5py", "requests", "sympy"}
IMPORTED = """
import importlib, sys
for paper in sys.argv[1:]:
    importlib.import_module(f"papers.{paper}.train")
print(*sys.modules)
"""


def test_what_help_needs_of_a_paper_takes_no_longer_to_import_than_pytorch():
    """`--help` has the fields of the recipe, which is beside the training loop."""
    words = [sys.executable, "-c", IMPORTED, *find_papers()]
    done = subprocess.run(words, cwd=paths.ROOT, capture_output=True, text=True, check=True)
    assert "torch" in done.stdout.split() and not HEAVY & set(done.stdout.split())
