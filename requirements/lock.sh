#!/usr/bin/env bash
# Makes the locks from the lists: bash requirements/lock.sh. Needs uv and the network.
#
# What the locks hold already stays as it is, unless you say --upgrade or --upgrade-package NAME.
# Each package has one version for all of Linux, macOS and Python 3.11 to 3.14, with the sha256 of every file of it.

cd "${BASH_SOURCE[0]%/*}/.." || exit
export UV_CUSTOM_COMPILE_COMMAND='bash requirements/lock.sh'

lock() {  # lock LIST LOCK [OPTION...]
  uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes "$1" -o "$2" "${@:3}"
}

lock requirements.txt requirements/users.lock "$@" || exit
known=$(sed -n 's/^\([a-z0-9][^ =]*\)==.*/--no-emit-package \1/p' requirements/users.lock)
# shellcheck disable=SC2086  # two words for each package
lock requirements/developers.txt requirements/developers.lock -c requirements/users.lock $known "$@"
