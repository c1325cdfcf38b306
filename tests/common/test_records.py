"""Records: written and read unchanged, and refused in one line where they make no sense."""

import errno
import json
import os

import pytest

from common.base import paths
from common.base.errors import NumbersError, UsageError
from common.training.records import (
    FinishedRecord,
    make_record,
    published_records,
    published_released,
    published_seed,
    read_record,
    read_run,
    write_record,
)


def test_a_record_is_read_as_it_was_written(toy, record, failed_record):
    for written in (record(), failed_record(1), record(2, remeasured={"last": {"test_error": 1 / 3}})):
        write_record(written, written.path())
        assert read_record(written.path()) == written
        assert published_seed(written) == written


def test_writing_twice_gives_the_same_bytes(tmp_path, record):
    write_record(record(), tmp_path / "a.json")
    write_record(read_record(tmp_path / "a.json"), tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


NAN = float("nan")


def metric(value: float, name: str = "test_error"):
    return lambda c: c["metrics"]["last"].update({name: value})


BROKEN = {
    "other schema": (lambda c: c.update(schema_version=2), "schema_version: is 2, but this program reads 1"),
    "missing field": (lambda c: c.pop("recipe_hash"), "recipe_hash: is missing"),
    "missing field below": (lambda c: c["environment"].pop("threads"), "environment.threads: is missing"),
    "unknown field": (lambda c: c.update(host="here"), "host: is unknown"),
    "a host name": (lambda c: c["environment"].update(host="here"), "environment.host: is unknown"),
    "wrong type": (lambda c: c.update(seed="0"), "seed:"),
    "unknown status": (lambda c: c.update(status="begun"), "the file: Input tag 'begun' found using 'status'"),
    "unknown preset": (lambda c: c.update(preset="long"), "preset:"),
    "unknown metric": (metric(1.0, "errors"), "metrics.last.errors: is not a metric"),
    "over 100 percent": (metric(100.1), "metrics.last.test_error: 100.1 is out of range"),
    "below 0 percent": (metric(-0.1), "metrics.last.test_error: -0.1 is out of range"),
    "mAP in percent": (metric(73.1, "map_avg"), "metrics.last.map_avg: 73.1 is out of range"),
    "NaN in the recipe": (
        lambda c: c["recipe"].update(steps=[[2, NAN]]),
        "recipe.steps.0.1: nan is not a finite number",
    ),
    "failed without reason": (lambda c: c.update(status="failed"), "failure: "),
    "finished without metrics": (lambda c: c.update(metrics={}), "metrics: "),
    "no date": (lambda c: c.update(date="2001-02-30"), "date: "),
    "no commit but a name": (lambda c: c["code"].update(commit="HEAD"), "code.commit: "),
    "finished without weights": (lambda c: c.update(weights=None), "weights: "),
}


BAD_NUMBERS = {
    "a metric": (metric(NAN), "metrics.last.test_error"),
    "an infinite metric": (metric(float("inf"), "psnr"), "metrics.last.psnr"),
    "a curve": (lambda c: c["curves"].update(loss=[1.0, NAN]), "curves.loss.1"),
    "a detail": (lambda c: c["details"].update(by_image=[30.1, NAN]), "details.by_image.1"),
    "deep in a detail": (
        lambda c: c["details"].update(table=[[1], [{"psnr": -float("inf")}]]),
        "details.table.1.0.psnr",
    ),
}


@pytest.mark.parametrize("name", BROKEN | BAD_NUMBERS)
def test_a_broken_record_is_told_in_one_line_with_its_place(tmp_path, record, name):
    breaks, expected = (BROKEN | BAD_NUMBERS)[name]
    content = record().model_dump()
    breaks(content)
    path = tmp_path / "seed-0.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UsageError) as told:
        read_record(path)
    assert f"{path}: {expected}" in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", "1e+400", "1" * 400 + ".0", "9" * 240 + "e99"])
@pytest.mark.parametrize("place", ["recipe", "details"])
def test_a_number_that_is_not_finite_is_found_however_it_is_written(tmp_path, record, place, number):
    """In a file laid out as ours are, which is read in another way than one that is all in one line."""
    content = record().model_dump()
    content[place]["odd"] = [0.5, "here"]
    path = tmp_path / "seed-0.json"
    path.write_text(json.dumps(content, indent=1).replace('"here"', number))
    with pytest.raises(UsageError, match=rf"{place}\.odd\.1: (nan|-?inf) is not a finite number$"):
        read_record(path)


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_read_cannot_be_made(record, name):
    breaks, expected = BROKEN[name]
    content = record().model_dump()
    breaks(content)
    with pytest.raises(UsageError, match="^record: "):
        make_record(FinishedRecord, **content)


@pytest.mark.parametrize("name", BAD_NUMBERS)
def test_a_run_that_hands_over_nan_or_infinity_has_failed(record, name):
    breaks, place = BAD_NUMBERS[name]
    content = record().model_dump()
    breaks(content)
    with pytest.raises(NumbersError, match=f"^{place} is (nan|-?inf)$"):
        make_record(FinishedRecord, **content)


def test_half_a_file_is_no_record(tmp_path, record):
    path = tmp_path / "seed-0.json"
    write_record(record(), path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UsageError, match="cannot be read") as told:
        read_record(path)
    assert "\n" not in str(told.value)


def test_a_folder_and_a_file_that_may_not_be_read_are_told_in_one_line(toy, record, monkeypatch):
    folder = record(9).path()
    folder.mkdir(parents=True)
    with pytest.raises(UsageError, match=f"^{folder}: cannot be read: Is a directory$"):
        published_records("alpha_2001")
    with pytest.raises(UsageError, match=f"^{folder}: cannot be read: Is a directory$"):
        read_run(folder)  # and --fresh, which removes files, is no way out

    def refuse(path, **_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(UsageError, match=f"^{folder}: cannot be read: Permission denied$"):
        read_record(folder)


def test_what_is_wrong_with_a_runs_own_record_comes_with_the_way_out(tmp_path, record):
    path = tmp_path / "record.json"
    for text in ("{", json.dumps(record().model_dump() | {"schema_version": 2})):
        path.write_text(text)
        with pytest.raises(UsageError, match=r"^.*record.json: .*\. Start over with --fresh\.$") as told:
            read_run(path)
        assert "\n" not in str(told.value)


def test_a_record_written_again_says_no_more_than_before(tmp_path, record):
    old = record()
    write_record(old, tmp_path / "old.json")
    before = (tmp_path / "old.json").read_bytes()
    assert b"scipy" not in before
    write_record(read_record(tmp_path / "old.json").model_copy(update={"remeasured": None}), tmp_path / "old.json")
    assert (tmp_path / "old.json").read_bytes() == before
    libraries = {"scikit_learn": "1.9", "scipy": "1.17", "pillow": "13.0"}
    environment = old.environment.model_dump() | libraries
    write_record(record(environment=environment), tmp_path / "new.json")
    assert read_record(tmp_path / "new.json").environment.scipy == "1.17"


def test_the_ends_of_a_range_are_in_range(record):
    assert [record(value=value).metrics["last"]["test_error"] for value in (0.0, 100.0)] == [0.0, 100.0]


def test_published_records_come_by_paper_variant_edition_and_seed(toy, record, failed_record):
    mixed = [
        record(10), record(9), failed_record(2), record(0, variant="wide"), record(0, edition="bundle"),
        record(0, paper="aa_1999"),
    ]  # fmt: skip
    toy.publish(*mixed)
    order = [mixed[5], mixed[4], mixed[2], mixed[1], mixed[0], mixed[3]]
    assert published_records() == order
    assert published_records("alpha_2001") == order[1:]
    assert published_records("beta_2010") == []


@pytest.mark.parametrize(
    "place",
    [
        "alpha_2001/plain/official/seed-1.json",
        "alpha_2001/wide/official/seed-0.json",
        "alpha_2001/plain/bundle/seed-0.json",
        "alpha_2001/seed-0.json",
    ],
)
def test_a_record_in_the_wrong_place_is_refused(toy, record, place):
    path = toy.root / "results" / "records" / place
    write_record(record(0), path)
    with pytest.raises(UsageError, match=f"{place}: belongs at results/records/alpha_2001/plain/official/seed-0.json"):
        published_records("alpha_2001")


def test_records_of_released_weights_are_read_as_written_and_are_no_seeds(toy, record, released_record):
    written = released_record()
    assert written.path() == paths.RECORDS / "alpha_2001" / "released" / "theirs" / "shapes.json"
    toy.publish(written, record())
    assert published_released("alpha_2001") == [written] and published_released("beta_2010") == []
    assert published_records("alpha_2001") == [record()]
    again = written.path().read_bytes()
    write_record(published_released("alpha_2001")[0], written.path())
    assert written.path().read_bytes() == again


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(recipe={}), "recipe: is unknown"),
        (lambda c: c.update(kind="trained"), "kind:"),
        (lambda c: c.update(schema_version=2), "schema_version: is 2"),
        (lambda c: c["metrics"]["last"].update(test_error=101.0), "metrics.last.test_error: 101.0 is out of range"),
        (lambda c: c["metrics"]["last"].update(tset_error=1.0), "metrics.last.tset_error: is not a metric"),
        (lambda c: c["weights"].pop("sha256"), "weights.sha256: is missing"),
        (lambda c: c.update(id="ours"), "belongs at results/records/alpha_2001/released/ours/shapes.json"),
    ],
)
def test_a_broken_record_of_released_weights_is_told_with_its_place(toy, released_record, change, said):
    toy.publish(released_record())
    file = released_record().path()
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(UsageError) as told:
        published_released("alpha_2001")
    assert str(told.value).startswith(f"{file}: ") and said in str(told.value)


def test_what_is_not_finite_makes_no_record_of_released_weights(released_record):
    with pytest.raises(NumbersError, match="test_error is nan"):
        released_record(float("nan"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(file=None), "weights.file: is missing, but there is a float16"),
        (lambda c: c["float16"].pop("sha256"), "weights.float16.sha256: is missing"),
        (
            lambda c: c["float16"]["metrics"]["last"].update(tset_error=1.0),
            "weights.float16.metrics.last.tset_error: is not a metric",
        ),
        (
            lambda c: c["float16"]["metrics"]["last"].update(test_error=101.0),
            "weights.float16.metrics.last.test_error: 101.0 is out of range",
        ),
    ],
)
def test_what_a_record_says_of_float16_is_checked(toy, rounded_record, change, said):
    toy.publish(rounded_record)
    assert read_record(rounded_record.path()) == rounded_record
    content = json.loads(rounded_record.path().read_text())
    change(content["weights"])
    rounded_record.path().write_text(json.dumps(content))
    with pytest.raises(UsageError) as told:
        read_record(rounded_record.path())
    assert str(told.value) == f"{rounded_record.path()}: {said}"
