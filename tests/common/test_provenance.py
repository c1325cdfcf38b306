"""Where a number comes from: which sources, which commit, and no word about whose machine."""

import dataclasses
import os
import platform
import shutil
import socket
import subprocess
from importlib import metadata

import pytest

from common.training import provenance
from common.training.provenance import Environment, commit, environment, hash_of, recipe_hash, source_files, source_hash

SOURCES = {
    "papers/toy/train.py": "import json\nfrom common import alpha\nfrom papers.toy.model import Net  # a comment\n"
    "if __name__ == '__main__':\n    from common.epsilon import main\n",
    "papers/toy/eval.py": "from papers.toy import data\n\n\ndef measure():\n    import common.beta\n",
    "papers/toy/model.py": "from common.gamma import thing\nfrom papers.other import model\n",
    "papers/toy/data.py": "from .parts import part\nfrom . import more\n",
    "papers/toy/parts.py": "from papers.toy import train  # in a circle\n",
    "papers/toy/more.py": "",
    "papers/toy/kernel.c": "int one(void) { return 1; }\n",
    "papers/toy/figures.py": "from common import delta\n",
    "papers/toy/README.md": "# Toy\n",
    "papers/toy/paper.yaml": "claims: []\n",
    "papers/other/model.py": "",
    **{f"common/{name}.py": "" for name in ("alpha", "beta", "gamma", "delta", "epsilon")},
    "common/beta.c": "",
    "common/delta.c": "",
}
MAKES_NUMBERS = [
    "common/alpha.py", "common/beta.c", "common/beta.py", "common/gamma.py", "papers/toy/data.py", "papers/toy/eval.py",
    "papers/toy/kernel.c", "papers/toy/model.py", "papers/toy/more.py", "papers/toy/parts.py", "papers/toy/train.py",
]  # fmt: skip
MAKES_NONE = [name for name in SOURCES if name not in MAKES_NUMBERS]


@pytest.fixture
def root(toy):
    for name, text in SOURCES.items():
        file = toy.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return toy.root


def test_the_sources_are_what_training_and_measuring_import(root):
    assert [str(file.relative_to(root)) for file in source_files("toy")] == MAKES_NUMBERS


@pytest.mark.parametrize("name", MAKES_NUMBERS)
def test_a_comment_in_an_imported_file_changes_the_hash(root, name):
    before = source_hash("toy")
    (root / name).write_text(SOURCES[name] + "# a comment\n")
    assert source_hash("toy") != before


@pytest.mark.parametrize("name", MAKES_NONE)
def test_a_file_that_makes_no_numbers_changes_nothing(root, name):
    before = source_hash("toy")
    (root / name).write_text(SOURCES[name] + "# a comment\n")
    assert source_hash("toy") == before


def test_a_renamed_source_changes_the_hash(root):
    before = source_hash("toy")
    (root / "papers/toy/kernel.c").rename(root / "papers/toy/core.c")
    assert source_hash("toy") != before


def test_the_hash_does_not_depend_on_where_the_repository_lies(root, monkeypatch, tmp_path):
    before = source_hash("toy")
    moved = root.rename(tmp_path / "elsewhere")
    monkeypatch.setattr(provenance.paths, "ROOT", moved)
    monkeypatch.setattr(provenance.paths, "PAPERS", moved / "papers")
    assert source_hash("toy") == before


@pytest.fixture
def git(root, monkeypatch):
    """Runs git in the made-up repository, whatever this user's settings are."""
    if not shutil.which("git"):
        pytest.skip("no git here")
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    settings = ["user.name=nobody", "user.email=nobody@example.com", "commit.gpgsign=false", "core.hooksPath=/dev/null"]

    def run(*words: str) -> str:
        command = ["git", *(part for setting in settings for part in ("-c", setting)), *words]
        return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.strip()

    run("init")
    return run


def test_the_commit_and_whether_the_sources_are_its(root, git):
    assert commit("toy") == (None, False)  # nothing committed yet
    git("add", ".")
    git("commit", "-m", "all")
    head = git("rev-parse", "HEAD")
    assert commit("toy") == (head, True)
    (root / "papers/toy/README.md").write_text("# Another page\n")
    assert commit("toy") == (head, True)
    (root / "common/gamma.py").write_text("x = 1\n")
    assert commit("toy") == (head, False)


def test_a_source_that_git_does_not_know_is_not_committed(git):
    git("add", "papers")
    git("commit", "-m", "papers only")
    assert commit("toy")[1] is False


def test_a_copy_that_another_repository_ignores_is_not_committed(root, git):
    (root / ".gitignore").write_text("/papers\n/common\n")
    git("add", ".gitignore")
    git("commit", "-m", "of something else")
    assert commit("toy") == (git("rev-parse", "HEAD"), False)


def test_without_git_there_is_no_commit(root, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert commit("toy") == (None, False)


def test_a_hash_does_not_depend_on_the_order_of_keys():
    assert hash_of({"a": 1, "b": [2]}) == hash_of({"b": [2], "a": 1})
    assert hash_of({"a": 1}) != hash_of({"a": 2})


def test_a_recipes_hash_depends_on_every_field():
    @dataclasses.dataclass
    class Recipe:
        rate: float = 0.1
        steps: tuple[tuple[int, float], ...] = ((1, 0.5),)

    hashes = {recipe_hash(r) for r in (Recipe(), Recipe(), Recipe(rate=0.2), Recipe(steps=((2, 0.5),)))}
    assert len(hashes) == 3


def test_the_environment_names_no_host_and_no_user(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "the-host")
    monkeypatch.setattr(platform, "node", lambda: "the-host")
    for name in ("USER", "LOGNAME", "HOME", "HOSTNAME"):
        monkeypatch.setenv(name, "/home/the-user")
    text = environment("cpu", 2, "float32", None, {"tf32": False}).model_dump_json()
    assert "the-host" not in text and "the-user" not in text


def test_the_environment_names_every_library_that_makes_numbers():
    named = environment("cpu", 2, "float32", None, {}).model_dump(exclude_unset=True)
    libraries = ("numpy", "scikit-learn", "scipy", "pillow")
    assert all(named[name.replace("-", "_")] == metadata.version(name) for name in libraries)


def test_the_environment_is_an_allow_list():
    assert set(Environment.model_fields) == {
        "python", "torch", "numpy", "scikit_learn", "scipy", "pillow", "system", "processor", "device", "threads",
        "precision", "compiled", "deterministic", "instruction_set", "processes",
    }  # fmt: skip
