"""Downloads from servers on this machine that answer well, badly, slowly or not at all."""

import errno
import hashlib
import io
import socket
import tarfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from common.base import paths
from common.base.errors import DataAbsent, MachineError
from common.data import download as module
from common.data.download import fetch
from common.data.passports import find_passport


class Servers:
    """Starts servers on 127.0.0.1. Each answers request k to it by `answer(handler, k)`."""

    def __init__(self):
        self.over = threading.Event()
        self.running: list[ThreadingHTTPServer] = []
        self.asked: list[str] = []

    def start(self, answer: Callable) -> str:
        servers = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                servers.asked.append(self.path)
                answer(self, len(servers.asked) - 1)

            def log_message(self, *words):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.handle_error = lambda *request: None  # clients leave: that is the point
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        self.running.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    def stop(self) -> None:
        self.over.set()
        for server in self.running:
            server.shutdown()
            server.server_close()


@pytest.fixture
def servers(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    servers = Servers()
    yield servers
    servers.stop()


@pytest.fixture
def impatient(monkeypatch):
    """Nobody wants to wait in earnest for a test."""
    monkeypatch.setattr(module, "PATIENCE_S", 1.0)


def send(handler, content: bytes, length: int | None = None, status: int = 200) -> None:
    """Answer with `content`, having promised `length` bytes."""
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(content) if length is None else length))
    handler.end_headers()
    handler.wfile.write(content)


@pytest.fixture
def good(toy):
    """An answer: the file that was asked for."""
    return lambda handler, k: send(handler, toy.content(handler.path.strip("/")))


def shapes_at(toy, *addresses: str):
    return toy.passport(lambda name: tuple(f"{address}/{name}" for address in addresses))


def gives_up(passport, expected: str = "could not be fetched") -> None:
    """It gives up in time, in one line, and leaves no file under its final name."""
    started = time.monotonic()
    with pytest.raises(DataAbsent, match=expected) as told:
        fetch(passport)
    assert time.monotonic() - started < 15
    assert "\n" not in str(told.value)
    assert list((paths.DATA / "shapes").glob("*.bin")) == []


def test_good_files_are_fetched_verified_and_announced(toy, servers, good):
    said = []
    found = fetch(shapes_at(toy, servers.start(good)), said.append)
    assert (found.edition, found.folder) == ("official", paths.DATA / "shapes")
    assert sorted(file.name for file in found.folder.iterdir()) == ["test.bin", "train.bin"]
    assert (found.folder / "train.bin").read_bytes() == toy.content("train.bin")
    assert [line.split()[:2] for line in said] == [["fetching", "train.bin"], ["fetching", "test.bin"]]


@pytest.fixture
def nested(toy):
    """Writes a passport whose only file lies in a subfolder."""

    def write(address: str):
        held = toy.content("test.bin")
        passport = {
            "title": "Nested", "page": "https://nested.example/", "terms": "free", "folder": "nested",
            "splits": {"test": 1}, "standin": "none",
            "editions": {"official": {"description": "one file", "equivalent": True, "files": {"part/test.bin": {
                "sha256": hashlib.sha256(held).hexdigest(), "bytes": len(held), "urls": [f"{address}/test.bin"],
            }}}},
        }  # fmt: skip
        (paths.PASSPORTS / "nested.yaml").write_text(yaml.safe_dump(passport))
        return find_passport("nested")

    return write


def test_a_file_in_a_subfolder_is_fetched(toy, servers, good, nested):
    found = fetch(nested(servers.start(good)))
    assert (found.folder / "part" / "test.bin").read_bytes() == toy.content("test.bin")


def test_a_subfolder_for_nothing_is_removed_again(toy, servers, nested):
    address = servers.start(lambda handler, k: send(handler, b"", status=404))
    with pytest.raises(DataAbsent):
        fetch(nested(address))
    assert not paths.DATA.exists()


def test_a_body_in_small_pieces_and_of_unknown_length_is_as_good(toy, servers):
    def in_pieces(handler, k):
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        content = toy.content(handler.path.strip("/"))
        for start in range(0, len(content), 100):
            piece = content[start : start + 100]
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        handler.wfile.write(b"0\r\n\r\n")

    assert fetch(shapes_at(toy, servers.start(in_pieces))).edition == "official"


def test_only_what_is_missing_or_damaged_is_fetched(toy, servers, good):
    folder = toy.put_data(paths.DATA)
    passport = shapes_at(toy, servers.start(good))
    fetch(passport)
    assert servers.asked == []
    (folder / "test.bin").write_bytes(b"half")
    fetch(passport)
    assert servers.asked == ["/test.bin"]
    assert (folder / "test.bin").read_bytes() == toy.content("test.bin")


def test_a_server_that_refuses(toy, servers):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    gives_up(shapes_at(toy, f"http://127.0.0.1:{port}"), "no connection")
    assert not paths.DATA.exists()  # nor an empty folder


def test_a_server_that_accepts_and_says_nothing(toy, servers, impatient):
    gives_up(shapes_at(toy, servers.start(lambda handler, k: servers.over.wait())), "too slow or silent")


def test_a_server_that_falls_silent_half_way(toy, servers, impatient):
    def half(handler, k):
        send(handler, toy.content("train.bin")[:2100], 4200)
        servers.over.wait()

    gives_up(shapes_at(toy, servers.start(half)), "too slow or silent")


@pytest.mark.parametrize(("size", "pause"), [(1, 0.1), (1024, 0.5)])
def test_a_server_that_drips(toy, servers, impatient, size, pause):
    content = toy.content("train.bin")

    def drip(handler, k):
        send(handler, b"", len(content))
        for start in range(0, len(content), size):
            handler.wfile.write(content[start : start + size])
            handler.wfile.flush()
            if servers.over.wait(pause):
                break

    gives_up(shapes_at(toy, servers.start(drip)), "too slow or silent")


def test_a_page_instead_of_the_file(toy, servers):
    page = b"<html>Please log in.</html>"
    gives_up(shapes_at(toy, servers.start(lambda handler, k: send(handler, page))), "something other than the file")


def test_a_file_of_the_right_size_with_other_content(toy, servers):
    other = bytes(4200)
    gives_up(shapes_at(toy, servers.start(lambda handler, k: send(handler, other))), "something other than the file")


@pytest.mark.parametrize("status", [404, 500])
def test_an_error_page(toy, servers, status):
    gives_up(shapes_at(toy, servers.start(lambda handler, k: send(handler, b"sorry", status=status))), str(status))


def test_a_body_that_is_far_too_long(toy, servers):
    def flood(handler, k):
        handler.send_response(200)
        handler.end_headers()
        for _ in range(500):
            handler.wfile.write(bytes(10_000))

    gives_up(shapes_at(toy, servers.start(flood)), "more than the file holds")


def test_no_http_at_all(toy, servers):
    gives_up(shapes_at(toy, servers.start(lambda handler, k: handler.wfile.write(b"220 ready\r\n"))), "no connection")


def test_an_interruption_half_way_is_tried_again(toy, servers, good):
    def interrupted(handler, k):
        if k == 0:
            send(handler, toy.content("train.bin")[:2100], 4200)
        else:
            good(handler, k)

    assert fetch(shapes_at(toy, servers.start(interrupted))).edition == "official"
    assert servers.asked == ["/train.bin", "/train.bin", "/test.bin"]


def test_an_interruption_late_in_a_long_transfer_is_tried_again(toy, servers, good, monkeypatch):
    """What counts is the time in which nothing came, not how long the file has taken so far."""
    monkeypatch.setattr(module, "PATIENCE_S", 1.5)
    monkeypatch.setattr(module, "SLOWEST_BYTES_PER_S", 100)

    def late(handler, k):
        if k:
            good(handler, k)
            return
        handler.send_response(200)
        handler.send_header("Content-Length", "4200")
        handler.end_headers()
        for start in range(0, 4000, 1000):
            handler.wfile.write(toy.content("train.bin")[start : start + 1000])
            time.sleep(0.2)

    assert fetch(shapes_at(toy, servers.start(late))).edition == "official"
    assert servers.asked == ["/train.bin", "/train.bin", "/test.bin"]


def test_interrupted_every_time(toy, servers):
    passport = shapes_at(toy, servers.start(lambda handler, k: send(handler, toy.content("train.bin")[:2100], 4200)))
    gives_up(passport, "2100")
    assert servers.asked == ["/train.bin"] * module.TRIES


def test_the_second_address_helps_where_the_first_does_not(toy, servers, good):
    bad = servers.start(lambda handler, k: send(handler, b"", status=404))
    assert fetch(shapes_at(toy, bad, servers.start(good))).edition == "official"


# ---- archives -----------------------------------------------------------------------------------


def tar(**members: bytes | tarfile.TarInfo) -> bytes:
    """A gzipped tar archive; a member is a file's content, or an entry of another kind."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, member in members.items():
            if isinstance(member, bytes):
                entry = tarfile.TarInfo(name)
                entry.size = len(member)
                archive.addfile(entry, io.BytesIO(member))
            else:
                archive.addfile(member)
    return content.getvalue()


SQUARES = {"part/a.bin": b"square" * 300, "part/b.bin": b"cube" * 300}


@pytest.fixture
def packed(toy, servers):
    """Serves an archive and writes the passport of a dataset in it: files known by their MD5 sums."""

    def write(content: bytes, **archive):
        address = servers.start(lambda handler, k: send(handler, content))
        known = {"md5": hashlib.md5(content).hexdigest(), "bytes": len(content), "urls": [f"{address}/some.tar.gz"]}
        files = {name: {"md5": hashlib.md5(held).hexdigest(), "bytes": len(held)} for name, held in SQUARES.items()}
        passport = {
            "title": "Packed", "page": "https://packed.example/", "terms": "free", "folder": "packed",
            "splits": {"test": 1}, "standin": "none",
            "editions": {"official": {
                "description": "two files", "equivalent": True, "files": files, "archive": known | archive,
            }},
        }  # fmt: skip
        (paths.PASSPORTS / "packed.yaml").write_text(yaml.safe_dump(passport))
        return find_passport("packed")

    return write


def files_in(folder) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_an_archive_is_fetched_and_the_files_wanted_are_taken_out(packed):
    said = []
    found = fetch(packed(tar(**SQUARES, **{"part/readme.html": b"more", "../../outside": b"more"})), said.append)
    assert found.files == {name: hashlib.sha256(content).hexdigest() for name, content in SQUARES.items()}
    assert files_in(paths.DATA / "packed") == SQUARES  # and neither the archive nor anything else
    assert not [*paths.ROOT.rglob("outside")]
    assert [line.split()[:2] for line in said] == [["fetching", "some.tar.gz"], ["unpacking", "some.tar.gz"]]


def test_an_archive_replaces_only_what_is_missing_or_damaged(packed, servers):
    passport = packed(tar(**SQUARES))
    fetch(passport)
    fetch(passport)
    assert len(servers.asked) == 1
    kept, damaged = (paths.DATA / "packed" / name for name in SQUARES)
    before = kept.stat().st_ino
    damaged.write_bytes(b"half")
    fetch(passport)
    assert len(servers.asked) == 2
    assert files_in(paths.DATA / "packed") == SQUARES and kept.stat().st_ino == before


def link() -> tarfile.TarInfo:
    entry = tarfile.TarInfo("part/a.bin")
    entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return entry


@pytest.mark.parametrize(
    ("content", "archive", "expected"),
    [
        (tar(**SQUARES), {"md5": "0" * 32}, "the server sent something other than the file"),
        (tar(**SQUARES | {"part/b.bin": b"ball" * 300}), {}, "holds a part/b.bin that is not what its passport says"),
        (tar(**{"part/a.bin": SQUARES["part/a.bin"]}), {}, "does not hold part/b.bin"),
        (tar(**SQUARES)[:-40], {}, "cannot be unpacked"),
        (b"<html>Please log in.</html>", {}, "cannot be unpacked"),
        (tar(**SQUARES | {"part/a.bin": link()}), {}, "cannot be unpacked: .*absolute path"),
    ],
    ids=["another checksum", "another file in it", "a file too few", "cut short", "a page", "a link out of the folder"],
)
def test_an_archive_that_is_not_what_it_should_be_leaves_nothing(packed, content, archive, expected):
    with pytest.raises(DataAbsent, match=expected) as told:
        fetch(packed(content, **archive))
    assert "\n" not in str(told.value)
    assert not paths.DATA.exists()


def test_a_bomb_is_not_unpacked(packed, monkeypatch):
    passport = packed(tar(**SQUARES | {"part/a.bin": bytes(10_000_000)}))
    monkeypatch.setattr(tarfile.TarFile, "extractall", None)
    with pytest.raises(DataAbsent, match="holds a part/a.bin that is not what its passport says"):
        fetch(passport)


def test_a_full_disk_while_unpacking_is_the_machines_fault(packed, monkeypatch):
    def full(*words, **named):
        raise OSError(errno.ENOSPC, "No space left on device")

    passport = packed(tar(**SQUARES))
    monkeypatch.setattr(tarfile.TarFile, "extractall", full)
    with pytest.raises(MachineError, match="No space left"):
        fetch(passport)
    assert files_in(paths.DATA / "packed") == {}


# ---- what cannot be fetched ---------------------------------------------------------------------


def test_without_addresses_the_page_is_named(toy):
    with pytest.raises(DataAbsent, match="https://shapes.example/"):
        fetch(toy.passport())


def test_a_full_disk_is_the_machines_fault(toy, servers, good, monkeypatch):
    def full(*words, **named):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pooch.retrieve", full)
    with pytest.raises(MachineError, match="No space left"):
        fetch(shapes_at(toy, servers.start(good)))


def test_a_data_folder_that_cannot_be_made_is_the_machines_fault(toy, servers, good):
    paths.DATA.parent.mkdir(exist_ok=True)
    paths.DATA.write_text("in the way")
    with pytest.raises(MachineError, match="data/shapes"):
        fetch(shapes_at(toy, servers.start(good)))


def test_nobody_waits_15_seconds_in_earnest():
    connecting, reading = module.TIMEOUTS_S
    assert module.PATIENCE_S + 1 < 15  # whatever a thread does, it is left behind after this
    assert module.PATIENCE_S / 3 + connecting + reading < 15  # a try that begins late
