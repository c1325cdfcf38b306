#!/usr/bin/env bash
# The front door: makes .venv once, then hands every word over to `python -m common`.
#
#   bash reproduce.sh              what there is
#   bash reproduce.sh PAPER        train, evaluate, compare with the paper
#   bash reproduce.sh --help       all of it
#
# $REPRO_PYTHON names an interpreter (3.11 or newer) to use as it is, with nothing installed.
# REPRO_TORCH=cpu, at the start that makes .venv, takes the CPU build of PyTorch.
# Written for bash 3.2 too, the one that macOS has.

[ -n "$BASH_VERSION" ] || exec bash "$0" "$@"  # started as `sh reproduce.sh`

case $0 in */*) ROOT=${0%/*} ;; *) ROOT=. ;; esac
ROOT=$(CDPATH='' cd -- "$ROOT" && pwd) || exit 5
VENV=$ROOT/.venv
USERS=$ROOT/requirements/users.lock  # what requirements.txt lists and what that needs, with hashes
DEVELOPERS=$ROOT/requirements/developers.lock
STAMP=$VENV/installed.txt  # the users' lock that .venv holds; written last, so that having it means complete
DEVELOPERS_STAMP=$VENV/installed-developers.txt
CPU_ONLY=$VENV/torch-cpu   # is there where .venv was made with REPRO_TORCH=cpu
LOG=$VENV/install.log
LOCK=$VENV/lock

say() { printf 'reproduce.sh: %s\n' "$1" >&2; }

fail() {  # each argument is a line
  local line
  for line in "$@"; do say "$line"; done
  exit 5
}

# ---- which Python ---------------------------------------------------------------------------

# "3.11 /usr/bin/python3.11", whatever the version: must be Python 2 as well. The path is the real one, so that
# .venv notices (by a dangling link) when the system's python3 has become another version.
DESCRIBE='import os, sys; print("%d.%d " % sys.version_info[:2] + os.path.realpath(sys.executable))'

fits() {  # fits 3.11
  local major=${1%%.*} minor=${1#*.}
  [ "$major" -gt 3 ] || { [ "$major" -eq 3 ] && [ "$minor" -ge 11 ]; }
}

find_python() {  # sets PYTHON, or leaves it empty and names in TOO_OLD what was there
  local name described
  PYTHON='' TOO_OLD=''
  for name in python3 python3.14 python3.13 python3.12 python3.11 python; do
    described=$("$name" -c "$DESCRIBE" 2>/dev/null) || continue
    if fits "${described%% *}"; then
      PYTHON=${described#* }
      return
    fi
    TOO_OLD=${TOO_OLD:-${described%% *}}
  done
}

find_uv() {  # sets UV; asks it to run, because a launcher may be there without its uv
  if uv --version >/dev/null 2>&1; then
    UV=(uv)
  elif [ -n "$PYTHON" ] && "$PYTHON" -m uv --version >/dev/null 2>&1; then
    UV=("$PYTHON" -m uv)
  else
    UV=()
  fi
}

python_from_uv() {  # sets PYTHON to one that uv has, or fetches
  PYTHON=$(uv python find '>=3.11' 2>/dev/null) && return
  say "no Python 3.11 or newer here: uv fetches one"
  uv python install -q 3.11 2>/dev/null && PYTHON=$(uv python find 3.11 2>/dev/null)
}

require_python() {
  find_python
  find_uv
  [ -z "$PYTHON" ] || return
  if [ ${#UV[@]} -gt 0 ]; then
    python_from_uv || fail "uv could not fetch Python 3.11: run again when online, or install Python 3.11 or newer."
  elif [ -n "$TOO_OLD" ]; then
    fail "Python $TOO_OLD is too old: install Python 3.11 or newer (https://www.python.org/downloads/), then run again."
  else
    fail "no Python found: install Python 3.11 or newer (https://www.python.org/downloads/), then run again."
  fi
}

# ---- making .venv ---------------------------------------------------------------------------

holds() {  # holds LOCK STAMP
  [ -f "$2" ] && [ -x "$VENV/bin/python" ] && [ "$(<"$2")" = "$(<"$1")" ]
}

installed() {
  holds "$USERS" "$STAMP" && { [ -z "$TESTS" ] || holds "$DEVELOPERS" "$DEVELOPERS_STAMP"; }
}

open_venv_folder() {  # and the lock file in it, as descriptor 9
  local error
  error=$( { mkdir -p "$VENV" && : >>"$LOCK"; } 2>&1) && exec 9>>"$LOCK" && return
  fail "cannot write to $VENV: ${error##*: }." \
    "Make room or make the folder writable; or set REPRO_PYTHON to a Python that has the packages."
}

# A lock of the system, taken by way of Python because macOS has no flock command. It belongs to the descriptor:
# whoever still holds it (this script, or a pip that outlived it) holds the lock, and nothing is left over by kill -9.
TAKE_LOCK='
import fcntl, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
try:
    try:
        fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("reproduce.sh: another start is installing; waiting for it", file=sys.stderr)
        fcntl.flock(9, fcntl.LOCK_EX)
except OSError:
    print("reproduce.sh: this file system has no locks: start nothing else until this start has installed",
          file=sys.stderr)
'

logged() { (cd "$ROOT" && "$@" </dev/null) >>"$LOG" 2>&1; }

disk_full() {
  local free
  grep -qiE 'no space left|quota exceeded' "$LOG" 2>/dev/null && return
  free=$(df -Pk "$VENV" 2>/dev/null | awk 'NR == 2 { print $4 }')
  [ "${free:-99999}" -lt 10240 ]
}

unreachable() {
  grep -qiE 'connection|connect error|error sending request|dns error|name resolution|timed out|unreachable' "$LOG"
}

other_hash() { grep -qiE 'hash mismatch|do not match the hashes' "$LOG"; }

explain_failure() {
  local last
  last=$(sed -n 's/^[[:space:]]*//; /./p' "$LOG" 2>/dev/null | tail -n 1)
  if disk_full; then
    fail "the disk is full: make room for about $SIZE here (and in the temporary folder), then run again."
  elif unreachable; then
    # Both tools download everything before they change anything, so what was installed before still is.
    [ ! -f "$VENV/previous.txt" ] || mv "$VENV/previous.txt" "$STAMP"
    fail "the package index cannot be reached: run again when online (or behind your mirror's settings)." \
      "Its last words: $last"
  elif other_hash; then
    fail "a package that came is not the one in requirements/ (another sha256): damaged on its way, or from a mirror" \
      "that builds its own. Take it from pypi.org, or set REPRO_PYTHON; the whole story is in $LOG."
  else
    fail "installing failed: $last" "The whole story is in $LOG; run again once that is mended."
  fi
}

empty_venv() {  # all but the lock that is held: half of an interrupted install, or a Python that has gone
  find "$VENV/." -mindepth 1 -maxdepth 1 ! -name lock -exec rm -rf {} +
}

make_venv() {
  if [ ${#UV[@]} -gt 0 ]; then
    logged "${UV[@]}" venv --allow-existing --python "$PYTHON" "$VENV"
  else
    "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
      fail "this Python has no venv module: 'sudo apt install python3-venv' (Debian, Ubuntu) or install uv, then run again."
    logged "$PYTHON" -m venv "$VENV"
  fi
}

install_packages() {  # install_packages LOCK [OPTION...], the options being some that pip and uv share
  local lock=$1 packages
  packages=(--only-binary :all: -r "$lock")
  if [ "$lock" = "$STAMP.part" ] && [ -f "$CPU_ONLY" ]; then
    # Of the lock only the versions: this PyTorch has hashes of its own, and needs no CUDA.
    packages=(--only-binary :all: -r requirements.txt -c "$lock" --no-verify-hashes --torch-backend cpu)
  fi
  if [ ${#UV[@]} -gt 0 ]; then
    logged "${UV[@]}" pip install --python "$VENV/bin/python" "${packages[@]}" "${@:2}"
  else  # -I: what $PYTHONPATH offers must not pass for installed
    logged "$VENV/bin/python" -I -m pip install --no-user --disable-pip-version-check --no-input --progress-bar off \
      "${packages[@]}" "${@:2}"
  fi
}

bring_in() {  # bring_in LOCK STAMP [OPTION...]
  logged cp "$1" "$2.part" && install_packages "$2.part" "${@:3}" && mv "$2.part" "$2" || explain_failure
}

can_be_changed() {  # a complete .venv, and a tool that can bring it up to date
  [ -f "$STAMP" ] && [ -x "$VENV/bin/python" ] || return
  [ ${#UV[@]} -gt 0 ] || "$VENV/bin/python" -m pip --version >/dev/null 2>&1
}

install_for_users() {
  if can_be_changed; then
    say "the requirements have changed: bringing .venv up to date (progress: .venv/install.log)"
    mv "$STAMP" "$VENV/previous.txt"
    : >"$LOG"
  else
    say "installing into .venv, once: about $SIZE, mostly PyTorch; takes a minute or more (progress: .venv/install.log)"
    empty_venv
    make_venv || explain_failure
    [ -z "$REPRO_TORCH" ] || touch "$CPU_ONLY"
  fi
  bring_in "$USERS" "$STAMP"
  rm -f "$VENV/previous.txt"
}

install_for_developers() {  # never touches what users have, and mends what an interruption left of itself
  local package
  can_be_changed || fail ".venv was made by uv, which is gone: install uv (https://docs.astral.sh/uv/) or delete .venv."
  say "installing what the tests need into .venv, once: about 100 MB (progress: .venv/install.log)"
  : >"$LOG"
  for package in "$VENV"/lib/python*/site-packages/*.dist-info; do
    [ -f "$package/RECORD" ] || rm -rf "$package"  # half there, and pip would refuse to replace it
  done
  bring_in "$DEVELOPERS" "$DEVELOPERS_STAMP" --no-deps --force-reinstall
}

ensure_installed() {
  case $ROOT in *:*) fail "a folder with ':' in its path cannot hold a Python environment: rename it ($ROOT)." ;; esac
  case $REPRO_TORCH in '' | cpu) ;; *) fail "REPRO_TORCH=$REPRO_TORCH is unknown: set it to cpu, or unset it." ;; esac
  case $(uname -s)$REPRO_TORCH in Linux) SIZE="6 GB" ;; *) SIZE="1.5 GB" ;; esac  # CUDA comes with PyTorch on Linux
  trap 'say "interrupted; start again to go on"; exit 130' INT
  trap 'say "interrupted; start again to go on"; exit 143' TERM
  require_python
  if [ ${#UV[@]} -eq 0 ] && { [ -n "$REPRO_TORCH" ] || [ -f "$CPU_ONLY" ]; }; then
    fail "the CPU build of PyTorch needs uv: install it (https://docs.astral.sh/uv/)," \
      "or unset REPRO_TORCH and delete .venv, for PyTorch as pip installs it."
  fi
  open_venv_folder
  "$PYTHON" -c "$TAKE_LOCK"
  holds "$USERS" "$STAMP" || install_for_users
  installed || install_for_developers
  exec 9>&-  # a training that runs for hours must not hold the lock
  trap - INT TERM
}

# ---- handing over ---------------------------------------------------------------------------

check_given_python() {
  local described
  described=$("$REPRO_PYTHON" -c "$DESCRIBE" 2>/dev/null) ||
    fail "REPRO_PYTHON=$REPRO_PYTHON does not run: name a Python 3.11 or newer, or unset it."
  fits "${described%% *}" ||
    fail "REPRO_PYTHON=$REPRO_PYTHON is Python ${described%% *}, too old: name a Python 3.11 or newer, or unset it."
  [ -z "$TESTS" ] || "$REPRO_PYTHON" -c 'import pytest, xdist' 2>/dev/null ||
    fail "REPRO_PYTHON=$REPRO_PYTHON has no pytest and pytest-xdist: install requirements/developers.txt into it."
}

[ "$1" = test ] && TESTS=yes || TESTS=''  # the tests need the developers' packages too
if [ -n "$REPRO_PYTHON" ]; then
  check_given_python
  PYTHON=$REPRO_PYTHON
else
  installed || ensure_installed
  PYTHON=$VENV/bin/python
fi

unset PYTHONDONTWRITEBYTECODE  # compiled modules are half of a quick start
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
exec "$PYTHON" -P -m common "$@"  # -P: a common/ or random.py in the caller's folder is not ours
