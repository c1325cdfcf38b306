"""A made-up repository: toy papers, a toy dataset, and records of runs that nobody made."""

import copy
import functools
import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from common.base import paths
from common.claims import verdict
from common.claims.papers import Claim, Paper, load_paper
from common.data.passports import Passport, find_passport
from common.pages.tables import BEGIN, END
from common.training.determinism import FLAGS
from common.training.records import FailedRecord, FinishedRecord, Record, ReleasedRecord, make_record, write_record
from tests.repository import move_to

# By edition: what the files of the dataset "shapes" hold. Sizes are no whole kilobytes.
SHAPES = {
    "official": {"train.bin": b"circle" * 700, "test.bin": b"square" * 300},
    "bundle": {"shapes.npz": b"circle and square" * 200},
    "resized": {"train.bin": b"oval" * 700, "test.bin": b"rectangle" * 300},
}
EQUIVALENT = ("official", "bundle")
PAGE = f"# A page\n\nBefore.\n\n{BEGIN}\nold\n{END}\n\nAfter.\n"  # of a paper or in front, with one generated block


def _file(content: bytes, urls: tuple[str, ...]) -> dict:
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), "urls": list(urls)}


def _passport(urls: Callable[[str], tuple[str, ...]]) -> dict:
    editions = {
        edition: {
            "description": f"the {edition} files",
            "equivalent": edition in EQUIVALENT,
            "files": {name: _file(content, urls(name)) for name, content in files.items()},
        }
        for edition, files in SHAPES.items()
    }
    return {
        "title": "Shapes",
        "page": "https://shapes.example/",
        "terms": "free",
        "folder": "shapes",
        "splits": {"train": 60000, "test": 10000},
        "standin": "three squares",
        "editions": editions,
    }


CLAIM = {
    "id": "plain-test",
    "variant": "plain",
    "metric": "test_error",
    "reported": "0.95",
    "where": "Table 1",
    "protocol": "last",
    "tolerance": 0.19,
    "needs": {"hours": 0.5},
}
PSNR = {"id": "wide-psnr", "variant": "wide", "metric": "psnr", "reported": "30.10", "tolerance": 0.05}
PAPER = {
    "citation": {
        "title": "On Shapes & <Sizes>",
        "authors": ["Ada Alpha", "Bo Beta"],
        "venue": "Proceedings of Nothing",
        "year": 2001,
        "bibtex": "@article{alpha2001}",
    },
    "default_variant": "plain",
    "headline": ["test_error"],
    "variants": {
        "plain": {"description": "as printed", "dataset": "shapes"},
        "wide": {"description": "twice as wide", "dataset": "shapes"},
    },
    "protocols": {"last": "the last weights", "best": "the best weights"},
    "claims": [CLAIM, CLAIM | PSNR],
}


RELEASED = {
    "id": "theirs",
    "by": "the authors",
    "variants": ["plain"],
    "dataset": "shapes",
    "file": "train.bin",
    "tests": ["shapes"],
}


IDEA = {
    "id": "width",
    "says": "width | <more> helps",
    "where": "Sec. 2",
    "with": "wide",
    "without": "plain",
    "metric": "test_error",
    "protocol": "last",
}


class Toy:
    """Writes papers, passports, data files and records under a folder that `common` takes for the repository."""

    def __init__(self, root: Path):
        self.root = root

    def paper_content(self) -> dict:
        """What `paper` writes by default, free to be broken."""
        return copy.deepcopy(PAPER)

    def paper(self, name: str = "alpha_2001", content: dict | str | None = None) -> Paper:
        """Write a paper.yaml (text as it is, anything else as YAML) and read it."""
        file = paths.PAPERS / name / "paper.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        content = PAPER if content is None else content
        file.write_text(
            content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False), encoding="utf-8"
        )
        return load_paper(name)

    def released_content(self) -> dict:
        """The same with released weights, which are one of the files of the dataset "shapes"."""
        return self.paper_content() | {"released": [copy.deepcopy(RELEASED)]}

    def idea_content(self, **changes) -> dict:
        """The same with an idea: that the wide variant has the lower test error."""
        return self.paper_content() | {"ideas": [IDEA | changes]}

    def claim(self, **changes) -> Claim:
        return Claim.model_validate(CLAIM | changes)

    def passport(self, urls: Callable[[str], tuple[str, ...]] = lambda name: ()) -> Passport:
        """The dataset "shapes"; `urls` gives the addresses of a file by its name."""
        paths.PASSPORTS.mkdir(parents=True, exist_ok=True)
        (paths.PASSPORTS / "shapes.yaml").write_text(yaml.safe_dump(_passport(urls), sort_keys=False))
        return find_passport("shapes")

    def content(self, name: str, edition: str = "official") -> bytes:
        return SHAPES[edition][name]

    def put_data(self, root: Path, edition: str = "official") -> Path:
        """Put a whole copy of an edition under `root`; the folder it lies in."""
        folder = root / "shapes"
        folder.mkdir(parents=True)
        for name, content in SHAPES[edition].items():
            (folder / name).write_bytes(content)
        return folder

    def publish(self, *records: Record | ReleasedRecord) -> None:
        for record in records:
            write_record(record, record.path())


@pytest.fixture
def toy(tmp_path, monkeypatch) -> Toy:
    root = tmp_path / "repository"
    move_to(root, monkeypatch)
    toy = Toy(root)
    toy.passport()
    return toy


@pytest.fixture
def git(toy):
    """Runs git in the toy repository."""

    def git(*words: str) -> str:
        identity = ("-c", "user.name=x", "-c", "user.email=x@y")
        done = subprocess.run(["git", *identity, *words], cwd=toy.root, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "-q")
    return git


@pytest.fixture
def record() -> Callable[..., Record]:
    """Makes records: `record(seed=1, value=0.9)`; any other field, or one of `data`, by name."""

    def make(seed=0, value=0.95, metric="test_error", protocol="last", edition="official", **changes) -> Record:
        fields = {
            "paper": "alpha_2001",
            "variant": "plain",
            "preset": "full",
            "seed": seed,
            "modified": False,
            "date": "2001-02-03",
            "metrics": {protocol: {metric: value}},
            "curves": {"loss": [1.0, 0.1 + 0.2]},
            "recipe": {"rate": 0.1, "steps": [[2, 0.5]], "name": "plain", "limit": None, "flip": True},
            "recipe_hash": "ab" * 32,
            "data": {"dataset": "shapes", "edition": edition, "files": {"train.bin": "cd" * 32}, "split": "ef" * 32},
            "code": {"commit": "12" * 20, "committed": True, "sources": "34" * 32},
            "environment": {
                "python": "3.11.0", "torch": "2.0.0", "numpy": "2.0", "system": "Linux x86_64", "processor": "abacus",
                "device": "abacus", "threads": 1, "precision": "float32", "compiled": None,
                "deterministic": dict(FLAGS),
            },
            "command": "bash reproduce.sh alpha_2001",
            "times": {"wall_seconds": 60.0, "training_seconds": 50.0, "samples_per_second": 3.5},
            "weights": {"sha256": "56" * 32},
        }  # fmt: skip
        return make_record(FailedRecord if "failure" in changes else FinishedRecord, **fields | changes)

    return make


@pytest.fixture
def rounded_record(record) -> Record:
    """The record of seed 0, whose weights are published in float16 and are worse for it."""
    rounded = {"sha256": "78" * 32, "metrics": {"last": {"test_error": 0.97}}}
    weights = {"sha256": "56" * 32, "file": "results/weights/alpha_2001/plain.safetensors", "float16": rounded}
    return record(weights=weights, remeasured={"last": {"test_error": 0.95}})


@pytest.fixture
def released_record(record) -> Callable[..., ReleasedRecord]:
    """Makes records of released weights with which nothing is wrong."""

    def make(value=0.95, **changes) -> ReleasedRecord:
        model = record()
        files = {name: _file(content, ())["sha256"] for name, content in SHAPES["official"].items()}
        fields = {
            "paper": "alpha_2001",
            "id": "theirs",
            "metrics": {"last": {"test_error": value}},
            "weights": {"name": "train.bin", "sha256": files["train.bin"]},
            "data": {"dataset": "shapes", "edition": "official", "files": files},
            "code": model.code.model_dump(),
            "environment": model.environment.model_dump(),
            "command": "bash reproduce.sh publish alpha_2001 --released",
            "seconds": 1.5,
        }
        return make_record(ReleasedRecord, **fields | changes)

    return make


@pytest.fixture
def failed_record(record) -> Callable[..., Record]:
    """Makes records of failed runs."""

    def make(seed=0, failure="the loss is nan", **changes) -> Record:
        return record(seed, failure=failure, metrics={}, weights=None, curves={}, **changes)

    return make


@pytest.fixture(scope="session")
def power():
    return functools.cache(verdict.power)


@pytest.fixture
def records(record, failed_record) -> list:
    return [
        *(record(k, value) for k, value in enumerate((0.9, 0.95, 1.0))),
        *(record(k, 31.0 + k, "psnr", variant="wide") for k in range(2)),
        *(record(k, 3.0 + k / 3, edition="resized") for k in range(3)),
        failed_record(0, "the loss is <nan> & 100 % wrong", paper="beta_2010"),
    ]


@pytest.fixture
def world(toy, records, monkeypatch, power):
    """Two papers, one with a page that has markers and one with a page that has none, and a front page."""
    monkeypatch.setattr(verdict, "power", power)
    content = toy.paper_content()
    content["claims"][1]["unverified"] = True
    for name in ("alpha_2001", "beta_2010"):
        toy.paper(name, content)
    for folder in (toy.root, paths.PAPERS / "alpha_2001"):
        (folder / "README.md").write_text(PAGE)
    (paths.PAPERS / "beta_2010" / "README.md").write_text("# Bare\n")
    toy.publish(*records)
    return toy
