"""What a run leaves behind: files in its own folder only, and nothing that says who ran it and where."""

import os
import platform
import socket
import sys
import tempfile
from pathlib import Path

import pytest

from common.base import paths
from common.claims.papers import find_papers
from tests.contract.helpers import PAPER, run, seed_folder, smoke
from tests.papers.variants import the_others_slow

HOST, USER = "the-host", "the-user"
WRITING = {
    "os.mkdir": 1,
    "os.rename": 2,
    "os.remove": 1,
    "os.rmdir": 1,
    "os.link": 2,
    "os.symlink": 2,
    "os.truncate": 1,
}


def watched() -> None:
    """Notes every path that is about to be changed, and gives the machine a name."""
    socket.gethostname = platform.node = lambda: HOST
    log = os.open(os.environ["WRITES"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(event: str, words: tuple) -> None:
        changed = words[: WRITING.get(event, 0)]
        if event == "open" and words[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            changed = words[:1]
        for path in changed:
            if isinstance(path, str | bytes | os.PathLike):
                os.write(log, f"{Path(os.fsdecode(path)).absolute()}\n".encode())

    sys.addaudithook(note)


def allowed(path: Path, runs: Path, aside: Path) -> bool:
    """In the runs' folder; where what is compiled is kept; and in the temporary folder, but not beside the runs."""
    temporary = path.is_relative_to(tempfile.gettempdir()) and not path.is_relative_to(aside)
    kept = path.is_relative_to(paths.RUNS / "compiled") or path == paths.RUNS or "__pycache__" in path.parts
    return path.is_relative_to(runs) or temporary or kept or path.parts[1] in ("dev", "proc")


@pytest.mark.parametrize("paper", the_others_slow(find_papers(), PAPER))
def test_a_run_writes_into_its_folder_only_and_names_nobody(tmp_path, paper):
    runs, writes = tmp_path / "runs", tmp_path / "writes"
    env = {"WRITES": str(writes), "USER": USER, "LOGNAME": USER, "HOME": f"/home/{USER}"}
    words = smoke(runs, "--device", "cpu", "--data", "standin", paper=paper)
    ended = run(*words, log=tmp_path / "log", prepare=watched, env=env)
    assert ended.code == 0, ended.err
    changed = {Path(line) for line in writes.read_text().splitlines()}
    assert any(path.name == "record.json" or path.parent == seed_folder(runs) for path in changed)
    assert [path for path in changed if not allowed(path, runs, tmp_path)] == []
    for file in seed_folder(runs).iterdir():
        content = file.read_bytes()
        assert HOST.encode() not in content and USER.encode() not in content, file
