"""Weights of a smoke run, published in float16 and loaded as a user loads them, in a repository of their own."""

from pathlib import Path

import pytest
from torch import nn

from common.base import paths
from common.claims.papers import Paper
from common.publishing import pretrained, publish
from common.publishing.publish import write_rounded
from common.training.records import FinishedRecord, write_record
from common.training.run import Job
from common.training.weights import RUN_WEIGHTS, load_weights


def load_in_float16(
    paper: Paper, job: Job, record: FinishedRecord, root: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[nn.Module, FinishedRecord]:
    """What `load_pretrained` gives of a finished run once it is published in float16, and its record then."""
    file = f"results/weights/{paper.name}/{job.variant}.safetensors"
    monkeypatch.setattr(paths, "ROOT", root)
    monkeypatch.setattr(paths, "RECORDS", root / "results" / "records")
    monkeypatch.setattr(publish, "recorded_data", lambda *_: job.data)
    monkeypatch.setattr(pretrained, "real_data", lambda passport: job.data)
    float16 = write_rounded(paper, record, load_weights(job.folder / RUN_WEIGHTS), root / file, None)
    weights = record.weights.model_copy(update={"file": file, "float16": float16})
    published = record.model_copy(update={"weights": weights})
    write_record(published, published.path())
    return pretrained.load_pretrained(paper.name, job.variant), published
