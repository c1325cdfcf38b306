"""Downloads: checked, resumable by file, and never waiting long for a dead server."""

import contextlib
import math
import os
import tarfile
import tempfile
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from common.base import paths
from common.base.errors import DataAbsent, MachineError
from common.data.passports import DataFile, Edition, LocatedData, Passport, locate

PATIENCE_S = 12.0  # without a byte, or at less than SLOWEST, before giving up
SLOWEST_BYTES_PER_S = 20_000
TRIES = 2
TIMEOUTS_S = (5, 5)  # connecting, reading

Report = Callable[[str], None]


def fetch(passport: Passport, report: Report = lambda text: None) -> LocatedData:
    """Bring the first edition that has addresses into data/ and verify it.

    Args:
        report: called with a line for each file that is fetched.

    Raises:
        DataAbsent: no edition has addresses, or the server refused, hung, was
            too slow or sent something else.
        MachineError: data/ cannot be written.
    """
    editions = [edition for edition in passport.editions.values() if edition.files]
    edition = next((e for e in editions if e.archive or all(f.urls for f in e.files.values())), None)
    if edition is None:
        raise DataAbsent(f"{passport.title} cannot be fetched; get it from {passport.page} ({passport.terms}).")
    folder = paths.DATA / (edition.folder or passport.folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(f"{folder}: {error.strerror}.") from None
    try:
        missing = _missing(folder, edition)
        if missing and edition.archive:
            _fetch_archive(folder, missing, edition.archive, report)
        else:
            for name, file in missing.items():
                _fetch_file(folder, name, file, report)
    except DataAbsent:
        for part in {folder, *((folder / name).parent for name in edition.files)}:
            with contextlib.suppress(OSError):
                os.removedirs(part)  # unless something is in it
        raise
    return locate(passport, data_dir=paths.DATA)


def _missing(folder: Path, edition: Edition) -> dict[str, DataFile]:
    return {
        name: file
        for name, file in edition.files.items()
        if not ((folder / name).exists() and file.is_at(folder / name))
    }


def _fetch_archive(folder: Path, files: dict[str, DataFile], archive: DataFile, report: Report) -> None:
    """Fetch a tar archive, take the wanted files out of it, and remove it."""
    name = PurePosixPath(archive.urls[0]).name
    _fetch_file(folder, name, archive, report)
    report(f"unpacking {name}")
    try:
        _unpack(folder / name, folder, files)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataAbsent(f"{name} cannot be unpacked: {_short(error)}.") from None
    except OSError as error:
        if error.errno is None:  # what gzip and its kin raise on damaged content
            raise DataAbsent(f"{name} cannot be unpacked: {_short(error)}.") from None
        raise MachineError(f"{folder}: {error.strerror}.") from None
    finally:
        (folder / name).unlink(missing_ok=True)  # another run that fetches the same may have removed it


def _unpack(path: Path, folder: Path, files: dict[str, DataFile]) -> None:
    """Each file gets its own name only when it is whole and what its passport says."""
    with tarfile.open(path) as archive, tempfile.TemporaryDirectory(dir=folder) as unpacked:
        if lacking := sorted(files.keys() - set(archive.getnames())):
            raise DataAbsent(f"{path.name} does not hold {lacking[0]}.")
        for name, file in files.items():  # before a bomb is unpacked
            member = archive.getmember(name)
            if member.isfile() and file.bytes not in (None, member.size):
                raise DataAbsent(f"{path.name} holds a {name} that is not what its passport says.")
        archive.extractall(unpacked, map(archive.getmember, files), filter="data")
        for name, file in files.items():
            if not file.is_at(Path(unpacked, name)):
                raise DataAbsent(f"{path.name} holds a {name} that is not what its passport says.")
        for name in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(Path(unpacked, name), folder / name)


class _Watch:
    """Stands between pooch and the file it writes: counts bytes and notices a server that drips or floods."""

    def __init__(self, limit: int | None):
        self.limit = limit or math.inf
        self.begin()

    def begin(self) -> None:
        """An attempt."""
        self.started = self.last = time.monotonic()
        self.received = 0  # after that: another thread looks on

    def download(self, url: str, path: str, _: object) -> None:
        """What pooch calls to fetch one address into a temporary file."""
        import pooch

        with open(path, "wb") as self.stream:
            pooch.HTTPDownloader(timeout=TIMEOUTS_S)(url, self, None)

    def write(self, content: bytes) -> None:
        self.received += len(content)
        self.last = time.monotonic()
        if self.received > self.limit:
            raise OSError("the server sends more than the file holds")
        self.stream.write(content)

    def flush(self) -> None:  # pooch asks for it after every kilobyte
        pass

    def stalled(self) -> bool:
        now = time.monotonic()
        slow = self.received < SLOWEST_BYTES_PER_S * (now - self.started) and now - self.started > PATIENCE_S
        return slow or now - self.last > PATIENCE_S


def _fetch_file(folder: Path, name: str, file: DataFile, report: Report) -> None:
    """Fetch one file in a thread that can be left behind: a name server that does not
    answer, or a server that drips, heeds no time-out."""
    import pooch

    report(f"fetching {name}" + (f" ({file.bytes / 1e6:.1f} MB)" if file.bytes else ""))
    known_hash = file.sha256 or (file.md5 and f"md5:{file.md5}")
    watch = _Watch(file.bytes)
    failure: list[Exception] = []

    def work() -> None:
        idle = 0.0  # seconds that ended in nothing: where there is no network, nobody waits for every address
        for url in file.urls * TRIES:
            watch.begin()
            try:
                pooch.retrieve(url, known_hash, name, folder, downloader=watch.download)
                failure.clear()
                return
            except Exception as error:  # whatever the network or the server does
                failure.append(error)
                idle += time.monotonic() - watch.last
                if idle > PATIENCE_S / 3:
                    return

    _quiet_pooch()
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while thread.is_alive() and not watch.stalled():
        thread.join(0.05)
    if thread.is_alive() or failure:
        last = failure[-1] if failure else None
        reason = "the server is too slow or silent" if last is None or thread.is_alive() else _short(last)
        if isinstance(last, OSError) and not _from_network(last):
            raise MachineError(f"{folder / name}: {reason}.")
        raise DataAbsent(f"{name} could not be fetched: {reason}.")


def _from_network(error: OSError) -> bool:
    import requests

    return isinstance(error, requests.RequestException) or error.errno is None


def _short(error: Exception) -> str:
    import requests

    if isinstance(error, requests.ConnectionError):
        return "no connection"
    if isinstance(error, requests.Timeout):
        return "the server is silent"
    if isinstance(error, ValueError) and "hash" in str(error).lower():
        return "the server sent something other than the file"
    return (str(error).splitlines() or [type(error).__name__])[0]


def _quiet_pooch() -> None:
    import logging

    import pooch

    pooch.get_logger().setLevel(logging.ERROR)
