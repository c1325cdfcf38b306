"""Data passports: which files a dataset is made of, where they come from, and
which edition of it is found here.

A dataset that several papers share has its passport in common/data/passports/; one
that a single paper uses may have it in that paper's folder passports/.
"""

import hashlib
import os
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePath

from common.base import paths
from common.base.errors import DataAbsent, DataError, UsageError, nearest
from common.base.schema import Checked, Count, read

SHOWN = 4  # names of what a folder holds


class DataFile(Checked):
    """A file and its known checksum: sha256, or its beginning, MD5 or git's own hash where only that is
    published. A file without a known checksum is accepted by its name; what is found is recorded."""

    sha256: str | None = None
    sha256_begins: str | None = None
    md5: str | None = None
    git_blob: str | None = None
    bytes: int | None = None
    urls: list[str] = []

    @property
    def has_checksum(self) -> bool:
        return bool(self.sha256 or self.sha256_begins or self.md5 or self.git_blob)

    def has(self, sha256: str) -> bool:
        """Whether a file with this sha256 is the one meant; no, where nothing is known of it."""
        known = self.sha256 or self.sha256_begins
        return known is not None and sha256.startswith(known)

    def is_at(self, path: Path, sha256: str | None = None) -> bool:
        """Whether what is there is this file, as far as can be told.

        Args:
            sha256: of what is there, if that is known already.
        """
        if self.sha256 or self.sha256_begins:
            return self.has(sha256 or file_sha256(path))
        if self.md5:
            return file_md5(path) == self.md5
        return self.git_blob is None or git_blob(path) == self.git_blob


class Package(Checked):
    """An installed Python package that ships the files of an edition, and the folder inside it where they are."""

    name: str
    folder: str

    def locate(self) -> Path | None:
        """That folder, without importing the package; None where it is not installed or has no such folder."""
        spec = find_spec(self.name)
        roots = spec.submodule_search_locations if spec else None
        folders = [Path(root) / self.folder for root in roots or []]
        return next((folder for folder in folders if folder.is_dir()), None)


class Tree(Checked):
    """How many folders a folder holds, one for each class, and how many files they hold together."""

    classes: int
    files: int


class Edition(Checked):
    """One exact set of files. Only an edition that is `equivalent`, with the
    evidence, counts for a claim.

    Where a Python package ships the files, `package` says so: they are there once it is installed.

    Files that have no addresses of their own are fetched from `urls`, to each of which the name of a file is
    appended. `parts` names folders that are datasets of their own, each with its passport: the files that the
    edition of the same name lists there belong to this one too.

    Where nobody publishes a list of files with their checksums, `folders` says how
    many files each folder holds; what is found there is recorded as it is, unless
    `digest` says what it must be (`folder_digest`). Where the files are a million, `trees` counts them class by class,
    and what is recorded of each tree is a hash of the names alone.

    Where the files are published in one tar archive, `archive` has its addresses; the files have the
    names that they have in it. `folder` is where the files are, if not in that of the dataset.
    """

    description: str
    equivalent: bool
    evidence: str | None = None
    folder: str | None = None
    urls: list[str] = []
    files: dict[str, DataFile] = {}
    parts: dict[str, str] = {}
    folders: dict[str, int] = {}
    trees: dict[str, Tree] = {}
    digest: str | None = None
    package: Package | None = None
    archive: DataFile | None = None


class PassportFile(Checked):
    title: str
    page: str
    terms: str
    folder: str
    splits: dict[str, Count] = {}
    standin: str | None = None  # what a run uses in its place; None where no run is on it alone
    editions: dict[str, Edition]


class Passport(PassportFile):
    name: str

    @property
    def known_files(self) -> set[str]:
        """The names of the files of all editions that list them."""
        return {name for edition in self.editions.values() for name in edition.files}

    def by_folder(self) -> list["Passport"]:
        """This passport once for each folder that editions are in, with the editions that are there."""
        editions: dict[str, dict[str, Edition]] = {}
        for name, edition in self.editions.items():
            editions.setdefault(edition.folder or self.folder, {})[name] = edition
        return [self.model_copy(update={"folder": folder, "editions": part}) for folder, part in editions.items()]

    def counts(self, edition: str) -> bool:
        """Whether a number measured on this edition may be set beside a claim."""
        return edition in self.editions and self.editions[edition].equivalent


@dataclass(frozen=True)
class LocatedData:
    """A dataset as found: `folder` is None for the stand-in."""

    dataset: str
    edition: str
    folder: Path | None
    files: dict[str, str]  # name to sha256
    vouched: tuple[str, ...] = ()  # the files that have a checksum in the passport, and agreed with it

    @property
    def standin(self) -> bool:
        return self.folder is None


def _passport_files(paper_folder: Path | None = None) -> dict[str, Path]:
    folders = [paths.PASSPORTS]
    folders += [paper_folder / "passports"] if paper_folder else sorted(paths.PAPERS.glob("*/passports"))
    return {file.stem: file for folder in folders for file in sorted(folder.glob("*.yaml"))}


def all_passports() -> dict[str, Passport]:
    return {name: _read_passport(file) for name, file in sorted(_passport_files().items())}


def find_passport(dataset: str, paper_folder: Path | None = None) -> Passport:
    """
    Raises:
        UsageError: no passport of that name, or one that is not valid.
    """
    files = _passport_files(paper_folder)
    if dataset not in files:
        raise UsageError(f"No dataset is called {dataset!r}.{nearest(dataset, files)}")
    return _read_passport(files[dataset])


def _read_passport(file: Path) -> Passport:
    content = read(file, PassportFile)
    editions = {name: _whole(edition, name, file) for name, edition in content.editions.items()}
    return Passport(name=file.stem, **dict(content) | {"editions": editions})


def _whole(edition: Edition, name: str, file: Path) -> Edition:
    """The edition with the files of its parts, and with the addresses of every file.

    Raises:
        UsageError: a part has no passport beside this one, or no edition of this name.
    """
    files = {
        path: entry if entry.urls else entry.model_copy(update={"urls": [url + path for url in edition.urls]})
        for path, entry in edition.files.items()
    }
    for folder, dataset in edition.parts.items():
        part = _read_passport(file.with_name(f"{dataset}.yaml"))
        if name not in part.editions:
            raise UsageError(f"{file}: editions.{name}.parts.{folder}: {dataset} has no such edition")
        files |= {f"{folder}/{path}": entry for path, entry in part.editions[name].files.items()}
    return edition.model_copy(update={"files": files})


def search_folders(data_dir: Path | None = None) -> list[Path]:
    """Where data is looked for, in order.

    Raises:
        DataError: a folder was named that does not exist. UsageError: it is a file.
    """
    named = {"--data-dir": data_dir, "REPRO_DATA": os.environ.get("REPRO_DATA")}
    folders = {name: Path(folder) for name, folder in named.items() if folder}
    for name, folder in folders.items():
        if folder.is_file():
            raise UsageError(f"{name} {folder}: is a file, not a folder.")
        if not folder.is_dir():
            raise DataError(f"{name} {folder}: no such folder.")
    return [*folders.values(), paths.DATA]


def locate(passport: Passport, data_dir: Path | None = None) -> LocatedData:
    """Find a complete, unaltered copy: in the folders where data is looked for, else in an installed package.

    Raises:
        DataAbsent: none of the folders holds all of the files, and no package does.
        DataError: a copy is damaged, altered or unreadable; or as `search_folders` raises.
    """
    places = [(root / part.folder, part) for root in search_folders(data_dir) for part in passport.by_folder()]
    incomplete = []
    for folder, part in places:
        try:
            present = [name for name in sorted(part.known_files) if (folder / name).exists()]
            if present:
                return _identify(part, folder, present)
            if given := _given(part, folder) or _planted(part, folder):
                return given
        except DataAbsent as absent:
            incomplete.append(str(absent))
        except OSError as error:
            raise DataError(f"{folder}: {error.strerror}. Nothing was changed.") from None
    if shipped := _shipped(passport):
        return shipped
    if incomplete:
        raise DataAbsent(f"{passport.title}: {incomplete[0]}")
    looked = [f"{folder}{_content(folder)}" for folder, _ in places]
    looked += [f"the Python package {e.package.name}" for e in passport.editions.values() if e.package]
    raise DataAbsent(f"{passport.title}: not found here (looked in {', '.join(looked)}).")


def _content(folder: Path) -> str:
    """What is there instead: ', which holds a, b', '' where nothing is or nothing can be seen."""
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return ""
    return f" (which holds {_some(names)})" if names else ""


def _some(names: list[str]) -> str:
    """'a, b, c, d and 3 more'"""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _shipped(passport: Passport) -> LocatedData | None:
    """The first edition that an installed Python package ships whole.

    Raises:
        DataError: the package's files are not what the passport says, or cannot be read.
    """
    for name, edition in passport.editions.items():
        package = edition.package
        folder = package.locate() if package else None
        if not (package and folder and edition.files and all((folder / file).is_file() for file in edition.files)):
            continue
        try:
            hashes = {file: file_sha256(folder / file) for file in edition.files}
            altered = [file for file, entry in edition.files.items() if not entry.is_at(folder / file, hashes[file])]
        except OSError as error:
            raise DataError(f"{folder}: {error.strerror}. Nothing was changed.") from None
        if altered:
            raise DataError(
                f"{folder / altered[0]} is not what its passport says (altered content). "
                f"Install {package.name} again, in the version that requirements.txt names."
            )
        return _whole_copy(passport, name, folder, hashes)
    return None


def _whole_copy(passport: Passport, edition: str, folder: Path, hashes: dict[str, str]) -> LocatedData:
    """A folder that holds every file of an edition as it should be."""
    files = passport.editions[edition].files
    vouched = tuple(name for name, file in files.items() if file.has_checksum)
    return LocatedData(passport.name, edition, folder, {name: hashes[name] for name in files}, vouched)


def _identify(passport: Passport, folder: Path, present: list[str]) -> LocatedData:
    hashes = {file: file_sha256(folder / file) for file in present}  # once, whatever the number of editions
    # For each edition: which of its files that are here are the right ones.
    right = {
        name: {
            file: entry.is_at(folder / file, hashes[file]) for file, entry in edition.files.items() if file in present
        }
        for name, edition in passport.editions.items()
    }
    for name, edition in passport.editions.items():
        if edition.files and len(right[name]) == len(edition.files) and all(right[name].values()):
            return _whole_copy(passport, name, folder, hashes)
    # Say what is wrong in terms of the edition that this copy is nearest to. What is altered comes
    # before what is missing: an altered copy is never overlooked.
    nearest_name = max(right, key=lambda name: (sum(right[name].values()), len(right[name])))
    edition, here = passport.editions[nearest_name], right[nearest_name]
    for name, file in edition.files.items():
        if not here.get(name, True):
            size = (folder / name).stat().st_size
            known = file.bytes not in (None, size)
            found = f"{size:,} bytes instead of {file.bytes:,}" if known else "altered content"
            raise DataError(f"{folder / name} is not what its passport says ({found}). Remove it and fetch it again.")
    for name in edition.files:
        if name not in here:
            raise DataAbsent(f"{folder / name} is missing.")
    raise AssertionError("a copy that differs nowhere from an edition is that edition")


def _given(passport: Passport, folder: Path) -> LocatedData | None:
    """A copy of an edition that is known by its folders, or None where none of them is there."""
    for name, edition in passport.editions.items():
        found = {part: visible_files(folder / part) for part in edition.folders if (folder / part).is_dir()}
        if not found:
            continue
        for part, count in edition.folders.items():
            if part not in found:
                raise DataAbsent(f"{folder / part} is missing ({count} files).")
            if len(found[part]) != count:
                odd = _odd_ones([path.name for path in found[part]])
                raise DataError(f"{folder / part} holds {len(found[part])} files instead of {count}{odd}.")
        files = {f"{part}/{path.name}": file_sha256(path) for part, paths in found.items() for path in paths}
        if edition.digest not in (None, folder_digest(files)):
            raise DataError(f"{folder} is not what its passport says (altered content). Remove it and get it again.")
        return LocatedData(passport.name, name, folder, files)
    return None


def _planted(passport: Passport, folder: Path) -> LocatedData | None:
    """A copy of an edition that is known by its trees, or None where none of them is there."""
    for name, edition in passport.editions.items():
        if not any((folder / tree).is_dir() for tree in edition.trees):
            continue
        files = {}
        for tree, wanted in edition.trees.items():
            if not (folder / tree).is_dir():
                raise DataAbsent(f"{folder / tree} is missing ({wanted.files:,} files in {wanted.classes:,} folders).")
            classes = class_folders(folder / tree)
            names = [f"{part}/{file.name}" for part in classes for file in visible_files(folder / tree / part)]
            if (len(classes), len(names)) != (wanted.classes, wanted.files):
                raise DataError(
                    f"{folder / tree} holds {len(names):,} files in {len(classes):,} folders "
                    f"instead of {wanted.files:,} in {wanted.classes:,}{_odd_ones(names)}."
                )
            files[tree] = hashlib.sha256("".join(f"{name}\n" for name in names).encode()).hexdigest()
        return LocatedData(passport.name, name, folder, files)
    return None


def _odd_ones(names: list[str]) -> str:
    """Where a number of files is wrong, those that may not belong there: ' (among them notes.txt)'."""
    endings = Counter(PurePath(name).suffix.lower() for name in names)
    usual = max(endings, key=endings.__getitem__, default="")
    odd = [name for name in names if PurePath(name).suffix.lower() != usual]
    return f" (among them {_some(odd)})" if odd else ""


def class_folders(folder: Path) -> list[str]:
    """The names of the folders in a folder, sorted, without hidden ones."""
    return sorted(part.name for part in folder.iterdir() if part.is_dir() and not part.name.startswith("."))


def visible_files(folder: Path) -> list[Path]:
    """The files in a folder, sorted; neither hidden ones nor those that Windows puts into folders by itself."""
    with os.scandir(folder) as entries:  # which knows what is a file without asking for each
        return sorted(Path(entry.path) for entry in entries if entry.is_file() and not _stray(entry.name))


def _stray(name: str) -> bool:
    return name.startswith(".") or name.lower() in ("thumbs.db", "desktop.ini")


def folder_digest(files: dict[str, str]) -> str:
    """One hash for many files: sha256 over what `find * -type f | LC_ALL=C sort | xargs sha256sum` prints for them.

    Args:
        files: name to sha256.
    """
    return hashlib.sha256("".join(f"{files[name]}  {name}\n" for name in sorted(files)).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def file_md5(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def git_blob(path: Path) -> str:
    """The hash by which git knows a file's content."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
