"""reproduce.sh: one command on any machine, and a clear line where the machine cannot.

Each test drives the real script in a copy of the house (its path has a space) whose `common` only says what it was
given. Python, pip and uv are stand-ins first and alone on PATH, so nothing is downloaded and any fault can be acted.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ["mkdir", "rm", "mv", "cp", "find", "grep", "sed", "tail", "awk", "df", "uname", "sleep", "touch", "cat"]
BASH = shutil.which("bash")

PROGRAM = """
import json, os, sys
if sys.argv[1:2] == ["exit"]:
    sys.exit(int(sys.argv[2]))
print(json.dumps({
    "argv": sys.argv[1:], "cwd": os.getcwd(), "python": sys.executable, "pythonpath": os.environ["PYTHONPATH"],
    "stdin": sys.stdin.read(), "bytecode": "PYTHONDONTWRITEBYTECODE" not in os.environ,
}))
"""

# What pip and uv do, by $FAKE_PIP. `slow` and `hang` leave a mark once they have begun.
INSTALL = """
install() {
  cat >/dev/null  # whatever it is offered to read
  case $FAKE_PIP in
    other-hash) echo 'ERROR: THESE PACKAGES DO NOT MATCH THE HASHES'; echo '  Got 1234'; exit 1 ;;
    offline) echo 'WARNING: Failed to establish a new connection'; echo '  ERROR: no fake==1'; exit 1 ;;
    full) echo 'OSError: [Errno 28] No space left on device'; exit 1 ;;
    broken) echo 'ERROR: no wheel fits'; exit 1 ;;
    slow) touch "$BEGUN"; sleep 1 ;;
    hang) touch "$VENV/half"; : >"$BEGUN"; exec sleep 30 ;;  # no shell left that could outlive a Ctrl-C
  esac
}
"""

# Plays the system's python3 and, copied, .venv/bin/python. Only the program itself and the lock run on a real Python.
FAKE_PYTHON = """
[ "$1" = -c ] || printf '%s\\n' "python $*" >>"$CALLS"
case "$*" in
  "-c "*version_info*) echo "${FAKE_VERSION:-3.12} $0" ;;
  "-c "*ensurepip*) [ -z "$FAKE_NO_VENV" ] ;;
  "-c import pytest, xdist") [ -z "$FAKE_NO_PYTEST" ] ;;
  "-m uv "*) exit 1 ;;
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  *"-m pip install "*) install ;;
  "-m pip --version") [ -z "$FAKE_NO_PIP" ] ;;
  *) exec "$REAL" "$@" ;;
esac
"""

FAKE_UV = """
printf '%s\\n' "uv $*" >>"$CALLS"
case "$*" in
  --version) ;;
  "python install "*) [ -z "$FAKE_UV_OFFLINE" ] && cp "$SPARE" "$SPARE.fetched" ;;
  "python find "*) [ -f "$SPARE.fetched" ] && echo "$SPARE.fetched" ;;
  "venv "*) mkdir -p "${!#}/bin" && cp "$SPARE" "${!#}/bin/python" ;;
  "pip install "*) install ;;
  *) exit 2 ;;
esac
"""


class House:
    """A copy of the front door, and the machine around it."""

    def __init__(self, folder: Path):
        self.root, self.bin, self.folder = folder / "my house", folder / "bin", folder
        self.venv, self.calls, self.begun = self.root / ".venv", folder / "calls", folder / "begun"
        for path in (self.root / "common", self.root / "requirements", self.bin):
            path.mkdir(parents=True)
        shutil.copy(ROOT / "reproduce.sh", self.root)
        (self.root / "common" / "__main__.py").write_text(PROGRAM)
        self.require("fake==1")
        self.require("tester==1", who="developers")
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool))
        spare = self.executable(folder / "spare-python", INSTALL + FAKE_PYTHON)
        self.env = {
            "PATH": str(self.bin), "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "REAL": sys.executable,
            "CALLS": str(self.calls), "BEGUN": str(self.begun), "VENV": str(self.venv), "SPARE": str(spare),
        }  # fmt: skip

    def executable(self, path: Path, text: str) -> Path:
        path.write_text(f"#!{BASH}\n{text}")
        path.chmod(0o755)
        return path

    def add_python(self, name: str = "python3", text: str = FAKE_PYTHON):
        self.executable(self.bin / name, INSTALL + text)

    def add_uv(self):
        self.executable(self.bin / "uv", INSTALL + FAKE_UV)

    def require(self, *pins: str, who: str = "users"):
        (self.root / "requirements" / f"{who}.lock").write_text("\n".join(pins) + "\n")

    def begin(self, *words: str, **env: str) -> subprocess.Popen:
        """A start in a process group of its own, like a terminal's; a Ctrl-C reaches it even if ours ignores them."""
        return subprocess.Popen(
            [BASH, str(self.root / "reproduce.sh"), *words], cwd=self.folder, env=self.env | env, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    def start(self, *words: str, script: str | None = None, cwd: Path | None = None, stdin: str = "", **env: str):
        return subprocess.run(
            [BASH, script or str(self.root / "reproduce.sh"), *words], cwd=cwd or self.folder, env=self.env | env,
            input=stdin, text=True, capture_output=True, timeout=20,
        )  # fmt: skip

    def count(self, words: str) -> int:
        return self.calls.read_text().count(words) if self.calls.exists() else 0

    def wait_for_install(self):
        deadline = time.monotonic() + 10
        while not self.begun.exists():
            assert time.monotonic() < deadline, "the installation never began"
            time.sleep(0.02)


@pytest.fixture
def bare(tmp_path):
    """A machine without Python and without uv."""
    return House(tmp_path)


@pytest.fixture
def house(bare):
    bare.add_python()
    return bare


def said(result) -> dict:
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def fault(result, *words: str):
    """Exit code 5 and, but for the line that it is installing, one or two lines that hold `words`."""
    lines = [line for line in result.stderr.splitlines() if "(progress: " not in line]
    assert result.returncode == 5, result
    assert 1 <= len(lines) <= 2, result.stderr
    assert all(line.startswith("reproduce.sh: ") for line in lines)
    for word in words:
        assert word in result.stderr
    assert result.stdout == ""


# ---- what a good start does ---------------------------------------------------------------


def test_first_start_installs_and_says_so_in_one_line(house):
    result = house.start("lenet5_1998")
    assert said(result)["python"] == sys.executable
    assert result.stderr.count("\n") == 1
    assert "installing into .venv" in result.stderr
    assert (house.venv / "installed.txt").read_text() == "fake==1\n"


def test_second_start_installs_nothing_and_says_nothing(house):
    house.start()
    house.calls.unlink()
    result = house.start("a")
    said(result)
    assert result.stderr == ""
    assert house.calls.read_text() == "python -P -m common a\n"


def test_uv_is_preferred_where_it_is(house):
    house.add_uv()
    said(house.start())
    assert house.count("uv pip install") == 1
    assert house.count("pip install") == 1


def test_a_uv_launcher_without_its_uv_is_passed_over(house):
    house.executable(house.bin / "uv", "exit 127")
    said(house.start())
    assert house.count("-m pip install") == 1


def test_words_pass_through_unchanged(house):
    words = ["a b", "", "--x=*", "$HOME", "'q'", 'd"q', "-P"]
    assert said(house.start(*words))["argv"] == words


def test_no_words_pass_through_as_none(house):
    assert said(house.start())["argv"] == []


@pytest.mark.parametrize("code", [0, 1, 3, 130])
def test_exit_code_of_the_program_passes_through(house, code):
    assert house.start("exit", str(code)).returncode == code


def test_input_reaches_the_program_even_on_the_first_start(house):
    assert said(house.start(stdin="for the program"))["stdin"] == "for the program"


@pytest.mark.parametrize("where, script", [(".", "my house/reproduce.sh"), ("my house", "reproduce.sh"),
                                           ("my house/common", "../reproduce.sh")])  # fmt: skip
def test_works_from_any_folder_and_stays_there(house, where, script):
    cwd = house.folder / where
    assert said(house.start(script=script, cwd=cwd))["cwd"] == str(cwd.resolve())


def test_a_common_in_the_callers_folder_is_not_run(house):
    (house.folder / "common").mkdir()
    (house.folder / "common" / "__main__.py").write_text("raise SystemExit('the wrong one')")
    said(house.start())


def test_python_is_told_where_the_house_is_and_may_write_bytecode(house):
    heard = said(house.start(PYTHONPATH="/theirs"))
    assert heard["pythonpath"] == f"{house.root}:/theirs"
    assert heard["bytecode"]
    assert said(house.start())["pythonpath"] == str(house.root)


# ---- what was installed, and whether it still is -------------------------------------------


def test_changed_requirements_install_again_once(house):
    house.start()
    house.require("fake==1", "other==2")
    assert "the requirements have changed" in house.start().stderr
    assert house.start().stderr == ""
    assert house.count("-m pip install") == 2
    assert house.count("-m venv") == 1


def test_a_python_that_has_gone_is_replaced(house):
    house.start()
    (house.venv / "bin" / "python").unlink()
    (house.venv / "bin" / "python").symlink_to("/gone/python3.12")
    said(house.start())
    assert house.count("-m venv") == 2


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_interrupted_install_is_made_anew(house, stop):
    first = house.begin(FAKE_PIP="hang")
    house.wait_for_install()
    os.killpg(first.pid, stop)
    first.communicate(timeout=10)
    assert first.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}[stop]
    assert (house.venv / "half").exists()

    said(house.start())
    assert not (house.venv / "half").exists()
    assert house.count("-m venv") == 2
    assert house.start().stderr == ""


def test_a_pip_that_outlived_its_start_is_waited_for(house):
    first = house.begin(FAKE_PIP="slow")
    house.wait_for_install()
    first.kill()
    result = house.start()
    first.communicate(timeout=10)
    said(result)
    assert "another start is installing; waiting" in result.stderr


def test_two_starts_at_once_install_once(house):
    starts = [house.begin(FAKE_PIP="slow") for _ in range(3)]
    outputs = [start.communicate(timeout=20) for start in starts]
    assert [start.returncode for start in starts] == [0, 0, 0], outputs
    assert house.count("-m pip install") == 1
    assert house.count("-m common") == 3


def test_the_program_does_not_hold_the_lock(house):
    """Else nobody could install while a training runs."""
    (house.root / "common" / "__main__.py").write_text("import os; os.fstat(9)")
    assert "Bad file descriptor" in house.start().stderr


# ---- what only the tests need ----------------------------------------------------------------


def test_users_do_not_install_what_tests_need(house):
    said(house.start("lenet5_1998"))
    assert house.count("-m pip install") == 1
    assert not (house.venv / "installed-developers.txt").exists()


def test_first_test_installs_what_tests_need_and_says_so(house):
    house.start()
    result = house.start("test")
    said(result)
    assert result.stderr.count("\n") == 1
    assert "installing what the tests need" in result.stderr
    assert house.count("installed-developers.txt.part --no-deps --force-reinstall") == 1
    assert house.start("test").stderr == ""
    assert house.count("-m pip install") == 2


def test_test_as_the_first_start_installs_all(house):
    said(house.start("test"))
    assert (house.venv / "installed.txt").read_text() == "fake==1\n"
    assert (house.venv / "installed-developers.txt").read_text() == "tester==1\n"
    assert house.count("-m pip install") == 2
    assert house.count("-m venv") == 1


def test_changed_test_requirements_leave_users_alone(house):
    house.start("test")
    house.require("tester==2", who="developers")
    assert house.start("lenet5_1998").stderr == ""
    assert "installing what the tests need" in house.start("test").stderr
    assert house.count("-m pip install") == 3


def test_interrupted_install_for_tests_leaves_users_alone(house):
    house.start()
    first = house.begin("test", FAKE_PIP="hang")
    house.wait_for_install()
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate(timeout=10)

    assert house.start("lenet5_1998").stderr == ""
    assert "installing what the tests need" in house.start("test").stderr
    assert house.count("-m venv") == 1


def test_half_a_package_of_the_tests_is_made_anew(house):
    """What pip leaves when it is killed between a package and the list of its files; it cannot replace that itself."""
    house.start()
    packages = house.venv / "lib" / "python3.12" / "site-packages"
    for file in ("half-1.dist-info/METADATA", "whole-1.dist-info/METADATA", "whole-1.dist-info/RECORD"):
        (packages / file).parent.mkdir(parents=True, exist_ok=True)
        (packages / file).touch()
    said(house.start("test"))
    assert [path.name for path in packages.iterdir()] == ["whole-1.dist-info"]


def test_offline_install_for_tests_leaves_users_alone(house):
    house.start()
    house.require("fake==2")
    house.start()
    fault(house.start("test", FAKE_PIP="offline"), "run again when online")
    assert house.start("lenet5_1998").stderr == ""


def test_venv_whose_uv_is_gone_says_so_to_the_tests(house):
    house.start()
    fault(house.start("test", FAKE_NO_PIP="1"), ".venv was made by uv, which is gone: install uv")


def test_repro_python_without_pytest_says_so_to_the_tests(house):
    said(house.start("lenet5_1998", REPRO_PYTHON="python3", FAKE_NO_PYTEST="1"))
    fault(house.start("test", REPRO_PYTHON="python3", FAKE_NO_PYTEST="1"), "install requirements/developers.txt")
    said(house.start("test", REPRO_PYTHON="python3"))


# ---- PyTorch without CUDA ----------------------------------------------------------------------
# Which arguments uv is given; that uv then finds the build at pytorch.org is not tested here.


def test_cpu_build_of_torch_comes_by_uv(house):
    house.add_uv()
    result = house.start(REPRO_TORCH="cpu")
    said(result)
    assert "about 1.5 GB" in result.stderr
    (call,) = [line for line in house.calls.read_text().splitlines() if line.startswith("uv pip install")]
    assert f"-r requirements.txt -c {house.venv}/installed.txt.part --no-verify-hashes --torch-backend cpu" in call


def test_cpu_build_stays_when_the_variable_is_not_set_again(house):
    house.add_uv()
    house.start(REPRO_TORCH="cpu")
    assert house.start().stderr == ""
    house.require("fake==2")
    said(house.start("test"))
    assert house.count("--torch-backend cpu") == 2
    assert house.count("uv pip install") == 3  # what the tests need comes with its hashes


def test_without_the_variable_no_build_is_chosen(house):
    house.add_uv()
    said(house.start())
    assert house.count("--torch-backend") == 0


def test_cpu_build_without_uv_says_what_to_do(house):
    fault(house.start(REPRO_TORCH="cpu"), "the CPU build of PyTorch needs uv", "unset REPRO_TORCH")
    assert not house.venv.exists()


def test_another_build_of_torch_is_refused(house):
    fault(house.start(REPRO_TORCH="cuda"), "REPRO_TORCH=cuda is unknown: set it to cpu, or unset it")


# ---- an interpreter of the user's own ------------------------------------------------------


def test_repro_python_is_used_as_it_is(bare):
    assert said(bare.start("a", REPRO_PYTHON=sys.executable))["argv"] == ["a"]
    assert not bare.venv.exists()


def test_repro_python_may_be_a_command_or_a_relative_path(house):
    house.add_python("mine")
    said(house.start(REPRO_PYTHON="mine"))
    said(house.start(REPRO_PYTHON="bin/mine"))
    assert not house.venv.exists()


def test_repro_python_comes_before_a_venv(house):
    house.start()
    house.calls.unlink()
    said(house.start(REPRO_PYTHON=sys.executable))
    assert not house.calls.exists()


def test_repro_python_that_is_not_there(house):
    fault(house.start(REPRO_PYTHON="/no/such/python"), "REPRO_PYTHON=/no/such/python does not run")


def test_repro_python_that_is_too_old(house):
    fault(house.start(REPRO_PYTHON="python3", FAKE_VERSION="3.10"), "REPRO_PYTHON=python3 is Python 3.10, too old")


# ---- faults of the machine -----------------------------------------------------------------


def test_no_python(bare):
    fault(bare.start(), "no Python found: install Python 3.11")


@pytest.mark.parametrize("version", ["2.7", "3.9", "3.10"])
def test_python_too_old(house, version):
    fault(house.start(FAKE_VERSION=version), f"Python {version} is too old: install Python 3.11")


@pytest.mark.parametrize("version", ["3.11", "3.14", "4.0"])
def test_python_new_enough(house, version):
    said(house.start(FAKE_VERSION=version))


def test_a_newer_python_beside_an_old_python3_is_found(house):
    house.add_python("python3", 'echo "3.9 $0"')
    house.add_python("python3.12")
    said(house.start())


def test_uv_fetches_a_python_where_none_fits(bare):
    bare.add_uv()
    result = bare.start()
    said(result)
    assert "uv fetches one" in result.stderr


def test_uv_that_cannot_fetch_a_python(bare):
    bare.add_uv()
    result = bare.start(FAKE_UV_OFFLINE="1")
    fault(result, "uv could not fetch Python 3.11", "run again when online")


def test_no_venv_module(house):
    fault(house.start(FAKE_NO_VENV="1"), "apt install python3-venv")


def test_uv_needs_no_venv_module(house):
    house.add_uv()
    said(house.start(FAKE_NO_VENV="1"))


@pytest.mark.parametrize("with_uv", [False, True])
def test_package_index_unreachable(house, with_uv):
    if with_uv:
        house.add_uv()
    fault(house.start(FAKE_PIP="offline"), "run again when online", "Its last words: ERROR: no fake==1")
    said(house.start())


def test_unreachable_index_leaves_what_was_installed(house):
    """A new pin cannot be had offline; going back to the old ones must work offline."""
    house.start()
    house.require("fake==2")
    fault(house.start(FAKE_PIP="offline"), "run again when online")
    house.require("fake==1")
    result = house.start(FAKE_PIP="offline")
    said(result)
    assert result.stderr == ""


@pytest.mark.parametrize("with_uv", [False, True])
def test_package_with_another_hash(house, with_uv):
    if with_uv:
        house.add_uv()
    fault(house.start(FAKE_PIP="other-hash"), "another sha256", "pypi.org", str(house.venv / "install.log"))
    said(house.start())


@pytest.mark.parametrize("error", ["ENOLCK", "ENOSYS"])
def test_disk_without_locks_is_warned_about(house, error):
    acted = f"import errno, fcntl\ndef flock(*_): raise OSError(errno.{error}, 'no locks')\nfcntl.flock = flock"
    (house.folder / "sitecustomize.py").write_text(acted)
    result = house.start(PYTHONPATH=str(house.folder))
    said(result)
    assert "this file system has no locks" in result.stderr


def test_disk_full(house):
    fault(house.start(FAKE_PIP="full"), "the disk is full: make room")
    said(house.start())


def test_any_other_failure_shows_its_last_words_and_the_log(house):
    fault(house.start(FAKE_PIP="broken"), "installing failed: ERROR: no wheel fits", str(house.venv / "install.log"))
    said(house.start())


def test_folder_that_cannot_be_written(house):
    """Acted by mkdir, since permissions do not stop root."""
    (house.bin / "mkdir").unlink()
    house.executable(house.bin / "mkdir", 'echo "mkdir: $2: Read-only file system" >&2; exit 1')
    fault(house.start(), f"cannot write to {house.venv}: Read-only file system", "REPRO_PYTHON")


def test_folder_with_a_colon(house):
    house.root.rename(house.folder / "a:b")
    fault(house.start(script="a:b/reproduce.sh"), "':'", "rename it")


# ---- the pins --------------------------------------------------------------------------------

LISTS = {"users": "requirements.txt", "developers": "requirements/developers.txt"}
HASHED_PIN = re.compile(r"(\S+==[^*\s]+(?: ; [^\\]+)?) \\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+")


def listed(who: str) -> list[str]:
    return [line for line in (ROOT / LISTS[who]).read_text().splitlines() if not line.startswith("#")]


def locked(who: str) -> dict[Requirement, str]:
    """Each pin of a lock with its comment, which says what needs it."""
    text = (ROOT / "requirements" / f"{who}.lock").read_text()
    entries = re.split(r"^(?=\w)", text, flags=re.MULTILINE)[1:]
    pins = [HASHED_PIN.match(entry) for entry in entries]
    assert entries and all(pins), "a package without version or hashes"
    return {Requirement(pin[1]): entry[pin.end() :] for pin, entry in zip(pins, entries, strict=True)}


@pytest.mark.parametrize("who", LISTS)
def test_every_requirement_is_pinned_and_says_why(who):
    for line in listed(who):
        pin, _, why = line.partition("#")
        name, _, version = pin.strip().partition("==")
        assert name and version[:1].isdigit() and "*" not in version and why.strip(), line


@pytest.mark.parametrize("who", LISTS)
def test_lock_agrees_with_its_list(who):
    """After a change of a list: bash requirements/lock.sh"""
    wanted = [Requirement(line.partition("#")[0]) for line in listed(who)]
    held = [pin for pin, needed_by in locked(who).items() if f"-r {LISTS[who]}" in needed_by]
    assert {f"{pin.name}{pin.specifier}" for pin in held} == {f"{pin.name}{pin.specifier}" for pin in wanted}


def test_every_package_has_one_version():
    """Also so that what the tests need never changes what a training uses."""
    names = [pin.name for who in LISTS for pin in locked(who)]
    assert len(names) == len(set(names))


def test_locks_hold_whatever_their_packages_need():
    """As far as the packages are installed here in their locked versions: pip and uv then add nothing of their own."""
    pins = [pin for who in LISTS for pin in locked(who)]
    versions = {canonicalize_name(found.name): found.version for found in distributions()}
    here = [pin for pin in pins if pin.name in versions and pin.specifier.contains(versions[pin.name])]
    if not here:
        pytest.skip("none of the locked packages is installed here in its locked version")
    for pin in here:
        needs = [Requirement(need) for need in requires(pin.name) or []]
        for need in needs:
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                assert canonicalize_name(need.name) in {pin.name for pin in pins}, f"{pin.name} needs {need}"
