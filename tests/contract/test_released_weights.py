"""Weights that others released: a passport, a line in paper.yaml and a function that reads them are all it takes."""

import hashlib
import json
import shutil
import subprocess

import pytest
import yaml

from tests.contract.helpers import Ended, assert_told, content, make_toy_repository, run

WEIGHTS = "-1 -1 1 1 0 -4.3\n"  # which cloud is above the line x + y = 2.15, a little too far up
READER = '''
"""A line as somebody wrote it down: its weights, then its biases."""

import torch


def read(path, recipe):
    numbers = torch.tensor([float(number) for number in path.read_text().split()])
    return {"weight": numbers[:4].reshape(2, 2), "bias": numbers[4:]}
'''
PASSPORT = f"""
title: A line
page: https://example.org/line
terms: public domain
folder: line_weights
editions:
  official:
    description: one file
    equivalent: true
    files: {{line.txt: {{sha256: {hashlib.sha256(WEIGHTS.encode()).hexdigest()}}}}}
"""
RELEASED = """
released:
  - {id: nobodys, by: Nobody, variants: [line], dataset: line_weights, file: line.txt, tests: [clouds]}
"""
RECORD = "records/toy/released/nobodys/clouds.json"


def tell(root, *words) -> Ended:
    return run(*words, root=root, log=root.parent / "log")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The toy repository, for whose paper somebody released weights."""
    root = make_toy_repository(tmp_path_factory.mktemp("released") / "repository")
    paper = root / "papers" / "toy"
    (paper / "released.py").write_text(READER)
    (paper / "passports" / "line_weights.yaml").write_text(PASSPORT)
    with open(paper / "paper.yaml", "a") as file:
        file.write(RELEASED)
    (root / "data" / "line_weights").mkdir()
    (root / "data" / "line_weights" / "line.txt").write_text(WEIGHTS)
    for words in (["add", "."], ["-c", "user.name=x", "-c", "user.email=x@y", "commit", "-qm", "released"]):
        subprocess.run(["git", *words], cwd=root, check=True)
    return root


@pytest.fixture(scope="module")
def published(root):
    """A copy of it, in which they are published."""
    copy = root.parent / "published" / "repository"
    shutil.copytree(root, copy)
    ended = tell(copy, "publish", "toy", "--released")
    assert ended.code == 0 and f"published results/{RECORD}" in ended.err, ended.err
    return copy


@pytest.fixture
def copy(published, tmp_path):
    return shutil.copytree(published, tmp_path / "repository")


def test_they_are_measured_beside_the_paper_and_nothing_is_written(root):
    before = content(root / "data")
    ended = tell(root, "eval", "toy", "--released")
    assert ended.code == 0 and "line.txt, released by Nobody, on clouds (official)" in ended.out
    (line,) = [line for line in ended.out.splitlines() if "test error" in line]
    assert " ".join(line.split()) == "test error last 10.0 ± 5.9 % 11.00 % confirmed –"
    assert not (root / "results").exists() and content(root / "data") == before
    (measured,) = json.loads(tell(root, "eval", "toy", "--released", "--json").out)
    assert (measured["released"], measured["dataset"]) == ("nobodys", "clouds")
    assert measured["metrics"] == {"last": {"test_error": 11.0}}


def test_one_record_is_published_with_the_files_hash_and_no_seed(published):
    record = json.loads((published / "results" / RECORD).read_text())
    assert record["kind"] == "released" and record["metrics"] == {"last": {"test_error": 11.0}}
    assert record["weights"] == {"name": "line.txt", "sha256": hashlib.sha256(WEIGHTS.encode()).hexdigest()}
    assert record["code"]["committed"] and record["data"]["dataset"] == "clouds"
    assert not {"seed", "recipe", "variant"} & record.keys()


def test_the_word_stands_in_a_column_of_its_own_and_for_no_verdict(published):
    (row,) = json.loads((published / "results" / "comparison.json").read_text())
    assert (row["released"], row["released_verdict"], row["released_record"]) == (
        11.0, "confirmed", "toy/released/nobodys/clouds",
    )  # fmt: skip
    assert (row["verdict"], row["mean"], row["records"]) == ("not attempted", None, [])
    for page in ("papers/toy/README.md", "results/README.md"):
        text = (published / page).read_text()
        assert "| **not attempted** | 11.00 %, **confirmed**" in text and "released weights, measured here" in text
    front = " ".join((published / "README.md").read_text().split())
    assert (
        "| 10.0 ± 5.9 % | 11.00 %, **confirmed** |" in front
        and "| 1 not attempted; by released weights 1 confirmed |" in front
    )
    assert f"[clouds]({RECORD})" in (published / "results" / "README.md").read_text()
    assert '<span class="verdict good">confirmed</span>' in (published / "results" / "index.html").read_text()


def test_a_number_of_weights_that_check_no_claim_is_shown_too(published, tmp_path):
    """Another network's, or those of another recipe."""
    copy = shutil.copytree(published, tmp_path / "repository")
    file = copy / "papers" / "toy" / "paper.yaml"
    content = yaml.safe_load(file.read_text())
    content["variants"]["elsewhere"] = content["variants"]["line"]
    content["released"][0]["variants"] = ["elsewhere"]
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    assert tell(copy, "table").code == 0
    for page in ("papers/toy/README.md", "results/README.md"):
        text = " ".join((copy / page).read_text().split())
        assert "Released weights that check no claim" in text and "Not run yet" not in text
        assert "| elsewhere | Nobody | test error | last | 11.00 % |" in text


def test_published_again_everything_stays_as_it_is(published):
    before = content(published / "results")
    ended = tell(published, "publish", "toy", "--released")
    assert ended.code == 0
    told = "toy: nothing new in results/, 1 record was there before; tables and figures rebuilt."
    assert ended.complaint[-1] == told
    assert content(published / "results") == before


def test_a_trained_verdict_stands_beside_the_word(copy):
    assert tell(copy, "toy", "--seeds", "0,1,2").code == 0 and tell(copy, "publish", "toy").code == 0
    (row,) = json.loads((copy / "results" / "comparison.json").read_text())
    assert (row["verdict"], row["n"], row["released_verdict"]) == ("reproduced", 3, "confirmed")


def test_uncommitted_sources_publish_nothing(root, tmp_path):
    copy = shutil.copytree(root, tmp_path / "repository")
    with open(copy / "papers" / "toy" / "released.py", "a") as file:
        file.write("# changed\n")
    assert_told(tell(copy, "publish", "toy", "--released"), 2, "papers/toy/released.py is not as in commit ")
    assert not (copy / "results").exists()


def test_verify_measures_them_again(published):
    ended = tell(published, "verify", "toy")
    assert ended.code == 0, ended.out
    assert "toy: line.txt on clouds  measures 1 numbers as recorded" in ended.out
    assert "toy: records  1 read, valid and consistent" in ended.out


@pytest.mark.parametrize("folder", ["clouds", "line_weights"])
def test_verify_fetches_nothing_and_skips_what_is_not_there(copy, folder):
    shutil.rmtree(copy / "data" / folder)
    ended = tell(copy, "verify", "toy")
    assert ended.code == 0 and "skipped   toy: line.txt on clouds" in ended.out
    assert not (copy / "data" / folder).exists()


@pytest.mark.parametrize("command", [["eval", "toy", "--released"], ["verify"], ["publish", "toy", "--released"]])
def test_an_altered_file_is_never_measured(copy, command):
    (copy / "data" / "line_weights" / "line.txt").write_text(WEIGHTS.replace("-1 -1", "-1 -2"))
    assert_told(tell(copy, *command), 3, "line.txt is not what its passport says")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda record: record["metrics"]["last"].update(test_error=10.0), "test_error (last) is 11.0, recorded 10.0"),
        (lambda record: record["metrics"].update(best={"test_error": 1.0}), "test_error (best) is None, recorded 1.0"),
        (
            lambda record: record["weights"].update(sha256="0" * 64),
            "its weights are not the line.txt that the passport",
        ),
        (
            lambda record: record["weights"].update(name="other.txt"),
            "its weights are not the line.txt that the passport",
        ),
        (lambda record: record["code"].update(committed=False), "its sources were changed from those of commit "),
        (lambda record: record["data"]["files"].update({"clouds.csv": "0" * 64}), "clouds.csv was not the file"),
        (lambda record: record["data"].update(edition="other"), "its edition 'other' is not in the passport"),
        (lambda record: record.update(id="others"), "belongs at results/records/toy/released/others/clouds.json"),
        (lambda record: record.update(seed=0), "seed: is unknown here"),
    ],
)
def test_verify_finds_what_is_wrong_with_their_record(copy, change, said):
    file = copy / "results" / RECORD
    record = json.loads(file.read_text())
    change(record)
    file.write_text(json.dumps(record))
    ended = tell(copy, "verify", "toy")
    assert ended.code == 1 and "Traceback" not in ended.err
    assert any(line.startswith("WRONG") and said in line for line in ended.out.splitlines()), ended.out


def test_a_record_of_weights_that_paper_yaml_no_longer_names_is_wrong(copy):
    paper = copy / "papers" / "toy" / "paper.yaml"
    paper.write_text(paper.read_text().replace(RELEASED, ""))
    ended = tell(copy, "verify", "toy")
    assert ended.code == 1 and "toy knows no released weights 'nobodys'" in ended.out


def test_weights_of_another_model_are_refused(root, tmp_path):
    copy = shutil.copytree(root, tmp_path / "repository")
    reader = copy / "papers" / "toy" / "released.py"
    reader.write_text(READER.replace("reshape(2, 2)", "reshape(1, 4)"))
    assert_told(tell(copy, "eval", "toy", "--released"), 2, "These are weights of another model")
    reader.write_text(READER.replace('"bias": numbers[4:]', '"bias": numbers[4:] / 0'))
    assert_told(tell(copy, "eval", "toy", "--released"), 4, "line.txt: NaN or infinity in bias.")


def test_without_data_there_is_nothing_to_measure_on(root, tmp_path):
    copy = shutil.copytree(root, tmp_path / "repository")
    shutil.rmtree(copy / "data" / "clouds")
    ended = tell(copy, "eval", "toy", "--released")
    assert ended.code == 3 and "left out: Two clouds cannot be fetched" in ended.err
    assert "Two clouds cannot be fetched" in ended.complaint[-1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["eval", "toy", "--released", "--weights", "x"], "--released goes with neither --weights nor --image."),
        (["eval", "toy", "--released", "--variant", "lime"], "Did you mean line?"),
    ],
)
def test_words_that_do_not_go_together_are_refused(root, words, said):
    assert_told(tell(root, *words), 2, said)


def test_a_paper_without_released_weights_says_so(toy_repository):
    for command in ("eval", "publish"):
        assert_told(tell(toy_repository, command, "toy", "--released"), 2, "No released weights of toy are known.")
