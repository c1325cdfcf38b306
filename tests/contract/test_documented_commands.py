"""Every command that a README shows is run, in its smoke form.

Those in the generated blocks name every variant of a paper; that a variant runs is tested by its
paper's tests, and here only that there is such a variant.
"""

import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from common.claims.papers import load_paper
from common.pages.tables import BEGIN, END
from tests.contract.helpers import run

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("papers/*/README.md"))]
GENERATED = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
PAPERS = sorted(file.parent.name for file in ROOT.glob("papers/*/paper.yaml"))


def commands_of(text: str) -> list[str]:
    """Commands in code blocks and between backticks, without what explains them."""
    shown = re.findall(r"(?:^ {4}|`)(bash reproduce\.sh[^`\n]*)", text, re.MULTILINE)
    commands = [re.split(r"  +", command)[0].split(" #")[0].strip() for command in shown]
    return [command for command in commands if "<" not in command and "PAPER" not in command]


def documented_commands() -> list[str]:
    pages = [GENERATED.sub("", page.read_text(encoding="utf-8")) for page in PAGES]
    return list(dict.fromkeys(command for page in pages for command in commands_of(page)))


def smoke_form(command: str, runs: Path) -> tuple[list[str], set[int]]:
    """The words to run instead, and the exit codes that are right for them."""
    words = shlex.split(command)[2:]
    what = words[0] if words else ""
    if "--help" in words:
        return words, {0}
    if "--released" in words or "--rerun" in words:  # half an hour, where the files are there
        return [*words, "--help"], {0}
    if what == "test":
        return ["test", "--collect-only", "-q", "-n", "0", "tests/common/test_duration.py"], {0}
    if what == "bench":
        return ["bench", "--help"], {0}
    if what == "publish":  # nothing was run into this folder
        return [*words, "--runs-dir", str(runs / "none")], {2}
    if what == "plot":
        return ["plot", str(runs / "none")], {2}
    if what == "eval":  # never on the stand-in
        return words, {0} if os.environ.get("REPRO_DATA") else {0, 3}
    if what == "all" or what in PAPERS:
        words = [word for word in words if word not in ("--preset", "quick")]
        return [*words, "--preset", "smoke", "--runs-dir", str(runs)], {0}
    return words, {0}


def test_there_are_commands_to_test():
    commands = documented_commands()
    with_page = [name for name in PAPERS if (ROOT / "papers" / name / "README.md").exists()]
    assert with_page and {f"bash reproduce.sh {name}" for name in ("test", *with_page)} <= set(commands)
    assert len(commands) > 12


@pytest.mark.parametrize("name", PAPERS)
def test_the_generated_commands_are_of_variants_that_exist(name):
    paper = load_paper(name)
    text = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    commands = [shlex.split(command) for command in commands_of(text) if f" {name} " in command]
    assert commands
    trains, measures = ["bash", "reproduce.sh", name, "--variant"], ["bash", "reproduce.sh", "eval", name]
    for command in commands:
        if command[:4] == measures:
            assert command[4:6] == ["--released", "--variant"] and command[6] in paper.variants
        else:
            assert command[:4] == trains and command[4] in paper.variants and command[5] == "--seeds"


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


def takes_long(command: str) -> bool:
    """What trains every paper, measures all that is published or redraws every page takes a minute and more; that a
    variant trains is among the tests of its paper."""
    what, *options = [*shlex.split(command)[2:], ""]
    return what in ("all", "eval", "verify", "table") or (what in PAPERS and "--variant" in options)


def each_command() -> list:
    """Once, where two have the same smoke form."""
    commands = {str(smoke_form(command, Path("runs"))): command for command in reversed(documented_commands())}
    return [
        pytest.param(command, marks=pytest.mark.slow if takes_long(command) else ())
        for command in reversed(commands.values())
    ]


@pytest.mark.parametrize("command", each_command())
def test_documented_command_runs(command, runs, tmp_path):
    """Without bash and the start of a Python; the front door has its own tests."""
    words, codes = smoke_form(command, runs)
    environment = {"REPRO_PYTHON": sys.executable}
    # With the pictures there, `verify` measures DnCNN's released weights for half an hour.
    if "REPRO_DATA" in os.environ and words[:1] != ["verify"]:
        environment["REPRO_DATA"] = os.environ["REPRO_DATA"]
    ended = run(*words, log=tmp_path, env=environment)
    assert ended.code in codes, f"{words}: {ended.code}\n{ended.out}\n{ended.err}"
    assert "Traceback" not in ended.err
