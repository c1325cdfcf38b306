"""A clone has the same bytes on every machine, whatever its git does to the ends of lines."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def git(*words: str | Path, cwd: Path = ROOT, stdin: str = "") -> list[str]:
    """The lines that git prints."""
    done = subprocess.run(["git", *words], cwd=cwd, input=stdin, text=True, capture_output=True, check=True)
    return done.stdout.splitlines()


@pytest.fixture(autouse=True)
def needs_a_clone():
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a clone, or no git")


@pytest.mark.parametrize("setting", ["core.autocrlf=true", "core.eol=crlf"])
def test_clone_on_windows_has_the_committed_bytes(tmp_path, setting):
    git("clone", "-q", "-c", setting, ROOT, tmp_path / "clone")
    tree = dict(reversed(line.split(maxsplit=3)[2:]) for line in git("ls-tree", "-r", "HEAD"))
    hashes = git("hash-object", "--no-filters", "--stdin-paths", cwd=tmp_path / "clone", stdin="\n".join(tree))
    assert "reproduce.sh" in tree
    assert [path for path, here in zip(tree, hashes, strict=True) if here != tree[path]] == []


def test_text_is_committed_with_unix_line_ends():
    assert [line for line in git("ls-files", "--eol") if line.startswith(("i/crlf", "i/mixed"))] == []


def test_what_is_not_text_is_declared_binary():
    """Git only guesses otherwise, by a NUL among the first 8,000 bytes."""
    binary = [line for line in git("ls-files", "--eol") if line.startswith("i/-text")]
    assert any(line.endswith(".safetensors") for line in binary)
    assert [line for line in binary if "attr/-text" not in line] == []
