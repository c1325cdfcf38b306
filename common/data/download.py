"""Downloads: checked, resumable by file, and never waiting long for a dead server."""

import contextlib
import math
import os
import threading
import time
from pathlib import Path

from common.base import paths
from common.base.errors import DataAbsent, MachineError
from common.data.passports import DataFile, Edition, LocatedData, Passport, locate

PATIENCE_S = 12.0  # without a byte, or at less than SLOWEST, before giving up
SLOWEST_BYTES_PER_S = 20_000
TRIES = 2
TIMEOUTS_S = (5, 5)  # connecting, reading


def fetch(passport: Passport, report=lambda text: None) -> LocatedData:
    """Bring the first edition that has addresses into data/ and verify it.

    Args:
        report: called with a line for each file that is fetched.

    Raises:
        DataAbsent: no edition has addresses, or the server refused, hung, was
            too slow or sent something else.
        MachineError: data/ cannot be written.
    """
    editions = [edition for edition in passport.editions.values() if edition.files]
    edition = next((e for e in editions if all(f.urls for f in e.files.values())), None)
    if edition is None:
        raise DataAbsent(f"{passport.title} cannot be fetched; get it from {passport.page} ({passport.terms}).")
    folder = paths.DATA / (edition.folder or passport.folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(f"{folder}: {error.strerror}.") from None
    try:
        for name, file in _missing(folder, edition):
            report(f"fetching {name}" + (f" ({file.bytes / 1e6:.1f} MB)" if file.bytes else ""))
            _fetch_file(folder, name, file)
    except DataAbsent:
        for part in {folder, *((folder / name).parent for name in edition.files)}:
            with contextlib.suppress(OSError):
                os.removedirs(part)  # unless something is in it
        raise
    return locate(passport, data_dir=paths.DATA)


def _missing(folder: Path, edition: Edition) -> list[tuple[str, DataFile]]:
    return [
        (name, file)
        for name, file in edition.files.items()
        if not ((folder / name).exists() and file.is_at(folder / name))
    ]


class _Watch:
    """Stands between pooch and the file it writes: counts bytes and notices a server that drips or floods."""

    def __init__(self, limit: int | None):
        self.limit, self.received = limit or math.inf, 0
        self.started = self.last = time.monotonic()

    def download(self, url: str, path: str, _) -> None:
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


def _fetch_file(folder: Path, name: str, file: DataFile) -> None:
    """Fetch one file in a thread that can be left behind: a name server that does not
    answer, or a server that drips, heeds no time-out."""
    import pooch

    watch = _Watch(file.bytes)
    failure: list[Exception] = []

    def work() -> None:
        for url in file.urls * TRIES:
            try:
                pooch.retrieve(url, file.sha256, name, folder, downloader=watch.download)
                failure.clear()
                return
            except Exception as error:  # whatever the network or the server does
                failure.append(error)
                watch.received = 0
                if time.monotonic() - watch.started > PATIENCE_S / 3:
                    return

    _quiet_pooch()
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while thread.is_alive() and not watch.stalled():
        thread.join(0.05)
    if thread.is_alive() or failure:
        reason = "the server is too slow or silent" if thread.is_alive() else _short(failure[-1])
        if isinstance(failure[-1] if failure else None, OSError) and not _from_network(failure[-1]):
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
        return "the server sent something else than the file"
    return (str(error).splitlines() or [type(error).__name__])[0]


def _quiet_pooch() -> None:
    import logging

    import pooch

    pooch.get_logger().setLevel(logging.ERROR)
