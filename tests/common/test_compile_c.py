"""compile_c(): where the library is kept, and what is done where it cannot be."""

import ctypes
from pathlib import Path

import pytest

from common.base import paths
from common.training.compile_c import compile_c

RUNS = "runs/compiled"


@pytest.fixture
def one(tmp_path, monkeypatch):
    """Compiles a file with one function, whose value is given."""
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    source = tmp_path / "paper" / "one.c"
    source.parent.mkdir()
    source.write_text("int one(void) { return 1; }\n")

    def value() -> int:
        compiled = compile_c.__wrapped__(source)  # not from the cache
        if compiled is None:
            pytest.skip("no C compiler here")
        return compiled[0].one()

    return value


def kept(folder: Path) -> list[Path]:
    return list((folder / RUNS).glob("*"))


def test_a_library_is_made_once_and_kept(one, tmp_path):
    assert one() == 1
    (library,) = kept(tmp_path)
    before = library.stat()
    assert one() == 1 and kept(tmp_path) == [library] and library.stat() == before


def test_from_a_disk_that_executes_nothing_it_is_loaded_from_the_temporary_folder(one, tmp_path, monkeypatch, capfd):
    load = ctypes.CDLL

    def noexec(name: str) -> ctypes.CDLL:
        if RUNS in name:
            raise OSError(f"{name}: failed to map segment from shared object")
        return load(name)

    monkeypatch.setattr(ctypes, "CDLL", noexec)
    assert one() == 1 and capfd.readouterr().err == ""


def test_where_runs_cannot_be_written_it_is_made_in_the_temporary_folder(one, tmp_path, capfd):
    (tmp_path / "runs").write_text("a file")
    assert one() == 1 and capfd.readouterr().err == ""


def test_a_damaged_library_is_passed_over_and_made_again(one, tmp_path, monkeypatch):
    one()
    (library,) = kept(tmp_path)
    other = tmp_path / "other" / RUNS / library.name  # what is loaded already is not loaded again
    other.parent.mkdir(parents=True)
    other.write_bytes(b"damaged")
    monkeypatch.setattr(paths, "RUNS", tmp_path / "other" / "runs")
    assert one() == 1 and not other.exists()
    assert one() == 1 and other.exists()


def test_machines_that_share_a_disk_have_libraries_of_their_own(one, tmp_path, monkeypatch):
    one()
    monkeypatch.setattr("common.training.device.instruction_set", lambda: "AVX9000")
    one()
    assert len(kept(tmp_path)) == 2
