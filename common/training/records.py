"""Records: one JSON file for one seed, or for one measurement of released weights; written whole or not at all, never
edited."""

import datetime
import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import pydantic

from common.base import paths
from common.base.errors import NumbersError, UsageError
from common.base.files import write_whole
from common.base.metrics import METRICS
from common.base.schema import Checked, check, not_finite, read
from common.training.provenance import Environment

SCHEMA = 1
MEASURED = ("metrics", "curves", "details")  # what a run hands over besides its weights
Metrics = dict[str, dict[str, float]]  # protocol to metric to value


def _date(text: str) -> str:
    """
    Raises:
        ValueError: it is no date.
    """
    datetime.date.fromisoformat(text)
    return text


Date = Annotated[str, pydantic.AfterValidator(_date)]


class FilesUsed(Checked):
    dataset: str
    edition: str
    files: dict[str, str]


class DataUsed(FilesUsed):
    split: str  # sha256 over which examples train and which test


class Code(Checked):
    commit: Annotated[str, pydantic.Field(pattern=r"^[0-9a-f]{40}$")] | None
    committed: bool
    sources: str

    @property
    def short_commit(self) -> str:
        """As the pages print it; 'none' where there is none, which `verify` says is wrong."""
        return self.commit[:7] if self.commit else "none"


class Times(Checked):
    wall_seconds: float
    training_seconds: float
    samples_per_second: float


class Rounded(Checked):
    """A published file whose weights are rounded to float16."""

    sha256: str  # of the file
    metrics: Metrics  # what it measures, in float32 on a CPU


class Weights(Checked):
    sha256: str
    file: str | None = None
    float16: Rounded | None = None  # where that file holds them rounded


class RunRecord(Checked):
    """What the records of finished and of failed runs have in common."""

    schema_version: int = SCHEMA
    paper: str
    variant: str
    preset: Literal["full", "quick", "smoke"]
    seed: int
    modified: bool
    date: Date
    recipe: dict[str, bool | int | float | str | list | None]
    recipe_hash: str
    data: DataUsed
    code: Code
    environment: Environment
    earlier_environments: list[Environment] = []  # where the training began, if it went on elsewhere
    command: str
    times: Times

    @property
    def standin(self) -> bool:
        return self.data.edition == paths.STANDIN

    @property
    def counts_for_paper(self) -> bool:
        """Whether it is the paper's run: the whole recipe, unchanged, on real data."""
        return self.preset == "full" and not self.modified and not self.standin

    @property
    def name(self) -> str:
        """Its path below results/records, without the ending."""
        return f"{self.paper}/{self.variant}/{self.data.edition}/seed-{self.seed}"

    @property
    def run(self) -> str:
        """What its weights say that they are of."""
        return f"{self.paper}/{self.variant}/seed-{self.seed}"

    def path(self) -> Path:
        """Where this record belongs once published."""
        return paths.RECORDS / f"{self.name}.json"


class FinishedRecord(RunRecord):
    status: Literal["finished"] = "finished"
    failure: None = None  # every file of a run has the fields of both kinds
    metrics: Annotated[Metrics, pydantic.Field(min_length=1)]
    remeasured: Metrics | None = None
    curves: dict[str, list[float]] = {}
    details: dict[str, list] = {}
    weights: Weights

    @property
    def metrics_of_file(self) -> Metrics | None:
        """What the published weights measure: the run's own, or what is left of them in float16."""
        return self.weights.float16.metrics if self.weights.float16 else self.remeasured


Nothing = Annotated[dict[str, Any], pydantic.Field(max_length=0)]


class FailedRecord(RunRecord):
    status: Literal["failed"] = "failed"
    failure: Annotated[str, pydantic.Field(min_length=1)]
    metrics: Nothing = {}
    remeasured: None = None
    curves: Nothing = {}
    details: Nothing = {}
    weights: None = None


Record = FinishedRecord | FailedRecord
RecordFile = pydantic.RootModel[Annotated[Record, pydantic.Field(discriminator="status")]]


class WeightsFile(Checked):
    name: str
    sha256: str  # of the file as it was released


def released_name(paper: str, weights: str, dataset: str) -> str:
    """The path below results/records, without the ending, of what released weights score on a dataset."""
    return f"{paper}/released/{weights}/{dataset}"


class ReleasedRecord(Checked):
    """What weights that somebody released score on one dataset, in float32 on a CPU. There is no seed and no recipe:
    nothing was trained here."""

    schema_version: int = SCHEMA
    kind: Literal["released"] = "released"
    paper: str
    id: str  # in paper.yaml
    date: Date
    metrics: Metrics
    details: dict[str, list] = {}
    weights: WeightsFile
    data: FilesUsed
    code: Code
    environment: Environment
    command: str
    seconds: float

    @property
    def name(self) -> str:
        """Its path below results/records, without the ending."""
        return released_name(self.paper, self.id, self.data.dataset)

    def path(self) -> Path:
        """Where this record belongs once published."""
        return paths.RECORDS / f"{self.name}.json"


R = TypeVar("R", bound=Record | ReleasedRecord)


def make_record(kind: type[R], **fields: Any) -> R:
    """A checked record, with today's date if the fields have none.

    Raises:
        NumbersError: a metric, a curve or a detail holds NaN or infinity.
        UsageError: a field is missing or of the wrong kind.
    """
    for name in MEASURED:
        for place, value in not_finite(fields.get(name), name):
            raise NumbersError(f"{place} is {value}")
    return _meaningful(
        check({"date": datetime.date.today().isoformat(), **fields}, kind, "record", finite=True), "record"
    )


def write_record(record: Record | ReleasedRecord, path: Path) -> None:
    content = record.model_dump()
    # What an older record did not say is not added when it is written again.
    content["environment"] = record.environment.model_dump(exclude_unset=True)
    if not content.get("earlier_environments", True):
        del content["earlier_environments"]
    if content["weights"] and not content["weights"].get("float16", True):
        del content["weights"]["float16"]
    write_whole(path, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())


def read_record(path: Path) -> Record:
    """
    Raises:
        UsageError: the file is not a record of this schema.
    """
    return _meaningful(read(path, RecordFile).root, str(path))


def read_run(path: Path) -> Record:
    """The record that a run left in its folder.

    Raises:
        UsageError: the file is not a record of this schema; the message says how to get rid of it.
    """
    try:
        return read_record(path)
    except UsageError as error:
        if not path.is_file():  # --fresh removes no folder
            raise
        raise UsageError(f"{error}. Start over with --fresh.") from None


def _meaningful(record: R, source: str) -> R:
    """Checks that the types of the fields cannot make.

    Raises:
        UsageError: another schema, or an impossible number.
    """

    def fault(text: str) -> UsageError:
        return UsageError(f"{source}: {text}")

    if record.schema_version != SCHEMA:
        raise fault(f"schema_version: is {record.schema_version}, but this program reads {SCHEMA}")
    measured = {"metrics": record.metrics}
    if isinstance(record, FinishedRecord) and record.weights.float16:
        measured["weights.float16.metrics"] = record.weights.float16.metrics
        if not record.weights.file:
            raise fault("weights.file: is missing, but there is a float16")
    for name, metrics in measured.items():
        for protocol, values in metrics.items():
            for metric, value in values.items():
                if metric not in METRICS:
                    raise fault(f"{name}.{protocol}.{metric}: is not a metric")
                low, high = METRICS[metric].range
                if not low <= value <= high:
                    raise fault(f"{name}.{protocol}.{metric}: {value} is out of range")
    return record


def published_records(paper: str | None = None) -> list[Record]:
    """All published records, or one paper's, by variant, edition and seed.

    Raises:
        UsageError: a file is not a record, or is where it does not belong.
    """
    root = paths.RECORDS / paper if paper else paths.RECORDS
    records = []
    for path in root.rglob("seed-*.json"):
        record = read_record(path)
        if record.path() != path:
            raise UsageError(f"{path}: belongs at results/records/{record.name}.json")
        records.append(record)
    return sorted(records, key=lambda r: (r.paper, r.variant, r.data.edition, r.seed))


def published_seed(record: Record) -> Record | None:
    """The published record of the same paper, variant, edition and seed, if there is one."""
    path = record.path()
    return read_record(path) if path.exists() else None


def published_released(paper: str) -> list[ReleasedRecord]:
    """The published records of weights that were released for a paper, by their ids and datasets.

    Raises:
        UsageError: a file is not a record, or is where it does not belong.
    """
    records = []
    for path in sorted((paths.RECORDS / paper / "released").rglob("*.json")):
        record = _meaningful(read(path, ReleasedRecord), str(path))
        if record.path() != path:
            raise UsageError(f"{path}: belongs at results/records/{record.name}.json")
        records.append(record)
    return records
