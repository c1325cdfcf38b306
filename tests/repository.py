"""Where `common` looks for the repository, for tests that give it another one."""

from pathlib import Path

import pytest

from common.base import paths


def move_to(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`common` takes this folder for the repository."""
    results = root / "results"
    places = {
        "ROOT": root,
        "PAPERS": root / "papers",
        "PASSPORTS": root / "common" / "data" / "passports",
        "RESULTS": results,
        "RECORDS": results / "records",
        "WEIGHTS": results / "weights",
        "FIGURES": results / "figures",
        "DATA": root / "data",
        "RUNS": root / "runs",
    }
    for name, place in places.items():
        monkeypatch.setattr(paths, name, place)
    monkeypatch.delenv("REPRO_DATA", raising=False)
