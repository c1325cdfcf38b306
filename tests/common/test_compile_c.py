"""compile_c(): where the library is kept, and what is done where it cannot be."""

import ctypes
import shutil
from pathlib import Path

import pytest

from common.base import paths
from common.training.compile_c import _tuned, compile_c

RUNS = "runs/compiled"


@pytest.fixture
def one(tmp_path, monkeypatch):
    """Compiles a file with one function, whose value is given."""
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    source = tmp_path / "paper" / "one.c"
    source.parent.mkdir()
    source.write_text("int one(void) { return 1; }\n")

    def value(**how) -> int:
        compiled = compile_c.__wrapped__(source, **how)  # not from the cache
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


def test_processors_of_one_name_have_libraries_of_their_own(one, tmp_path, monkeypatch):
    one()
    monkeypatch.setattr("common.training.provenance.processor_flags", lambda: "sse2")
    one()
    assert len(kept(tmp_path)) == 2


PROCESSORS = {
    ("x86_64", "AVX512 with avx512_bf16"): ["-march=native", ""],
    ("x86_64", "AVX2"): ["-march=native -mno-avx512f", ""],
    ("x86_64", "DEFAULT"): [""],
    ("arm64", "DEFAULT"): ["-march=native", ""],
}


@pytest.mark.parametrize(("machine", "instructions"), PROCESSORS)
def test_no_more_of_the_processor_is_used_than_by_pytorch(monkeypatch, machine, instructions):
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert list(map(" ".join, _tuned(instructions))) == PROCESSORS[machine, instructions]


def test_threads_are_those_of_the_library_that_pytorch_has(one, tmp_path, monkeypatch, capfd):
    """With gcc's OpenMP or not at all: clang brings its own, beside which PyTorch's may end the process."""
    said = "int one(void) {\n#ifdef _OPENMP\nreturn 2;\n#endif\nreturn 1; }\n"
    (tmp_path / "paper" / "one.c").write_text(said)
    if one() == 1 and shutil.which("gcc"):
        monkeypatch.setenv("CC", "gcc")
        assert one(threads=True) == 2
    clang = tmp_path / "clang"
    clang.write_text("#!/bin/sh\necho clang version 21\n")
    clang.chmod(0o755)
    monkeypatch.setenv("CC", str(clang))
    with pytest.raises(pytest.skip.Exception):
        one(threads=True)
    said = "one.c needs gcc, and this is clang version 21: PyTorch does the work, more slowly."
    assert said in capfd.readouterr().err


@pytest.mark.parametrize("compiler", ["no-such-compiler", "env no-such-compiler", "'", " "])
def test_a_compiler_that_does_not_start_is_named(one, monkeypatch, capfd, compiler):
    monkeypatch.setenv("CC", compiler)
    with pytest.raises(pytest.skip.Exception):
        one()
    assert f"CC={compiler} does not start: PyTorch does the work of one.c" in capfd.readouterr().err


def test_a_compiler_may_have_arguments(one, monkeypatch):
    if not shutil.which("cc"):
        pytest.skip("no C compiler here")
    monkeypatch.setenv("CC", "env cc")
    assert one() == 1
