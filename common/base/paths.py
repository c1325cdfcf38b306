"""Where things are. Everything hangs off the repository's root."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAPERS = ROOT / "papers"
PASSPORTS = ROOT / "common" / "data" / "passports"
RESULTS = ROOT / "results"
RECORDS = RESULTS / "records"
WEIGHTS = RESULTS / "weights"
FIGURES = RESULTS / "figures"
DATA = ROOT / "data"
RUNS = ROOT / "runs"
PRESETS = ("full", "quick", "smoke")
STANDIN = "stand-in"  # the edition of a run on embedded data


def python_path(root: Path = ROOT) -> str:
    """$PYTHONPATH for a process of its own that imports these sources, or those of a copy."""
    return os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
