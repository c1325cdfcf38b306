"""Where things are. Everything hangs off the repository's root."""

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
