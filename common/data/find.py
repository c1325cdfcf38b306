"""The data of a run: found here, else fetched, else the stand-in."""

from collections.abc import Iterable
from pathlib import Path

from common.base import paths
from common.base.errors import DataAbsent, MachineError, UsageError
from common.base.progress import say, warn
from common.data.download import fetch
from common.data.passports import LocatedData, Passport, locate, search_folders


def real_data(passport: Passport, data_dir: Path | None = None) -> LocatedData:
    """The real data, fetched if need be; never the stand-in.

    Raises:
        DataError: it is unavailable, or damaged. MachineError: data/ cannot be written.
    """
    try:
        return locate(passport, data_dir)
    except DataAbsent as absent:
        say(f"{absent} Fetching it.")
    return fetch(passport, say)


def available(passports: Iterable[Passport], data_dir: Path | None) -> dict[str, LocatedData]:
    """The real data of those that can be had, by name. Of the others it is said why not.

    Raises:
        DataAbsent, MachineError: none can be had; the reason of the last one. DataError: one is damaged.
    """
    found, why = {}, None
    for passport in {passport.name: passport for passport in passports}.values():
        try:
            found[passport.name] = real_data(passport, data_dir)
        except (DataAbsent, MachineError) as error:
            why = error
            say(f"left out: {error}")
    if why and not found:
        raise why
    return found


def find_data(passport: Passport, preset: str, mode: str, data_dir: Path | None) -> LocatedData:
    """The real data if it is available and wanted, else the stand-in, with a warning.

    Raises:
        DataError: damaged data; or absent data, where real data was asked for. UsageError: that was for `smoke`.
    """
    standin = LocatedData(passport.name, paths.STANDIN, None, {})
    search_folders(data_dir)
    if (preset, mode) == ("smoke", "real"):
        raise UsageError("--preset smoke is a test on the stand-in: leave out --data real, or take --preset quick.")
    if preset == "smoke" or mode == "standin":
        return standin
    try:
        return real_data(passport, data_dir)
    except (DataAbsent, MachineError) as absent:
        if mode == "real":
            folder = passport.folder
            advice = f"Put it into data/{folder}, or name the folder that holds {folder}/ with --data-dir."
            raise DataAbsent(f"{absent} {advice}") from None
        warn(f"STAND-IN DATA: {absent} This run uses {passport.standin}: its numbers say nothing about the paper.")
        return standin
