"""What is wrong with published records is found, each fault by itself and in its own words."""

import copy
import hashlib
from dataclasses import asdict, dataclass
from types import SimpleNamespace

import pytest

from common.base import paths
from common.claims.papers import Paper
from common.publishing.checks import differences, paper_faults, record_faults, released_faults, same
from common.training.provenance import hash_of
from common.training.records import make_record


@dataclass(frozen=True)
class Recipe:
    rate: float = 0.1
    sizes: tuple[int, ...] = (2, 3)


@pytest.fixture
def paper(toy, monkeypatch) -> Paper:
    train = SimpleNamespace(recipe=lambda variant, preset: Recipe())
    monkeypatch.setattr(Paper, "module", lambda paper, name: train)
    return toy.paper()


@pytest.fixture
def sound(toy, record):
    """Makes records with which nothing is wrong."""

    def sound(seed=0, **changes):
        files = {name: hashlib.sha256(toy.content(name)).hexdigest() for name in ("train.bin", "test.bin")}
        fields = {
            "recipe": {"rate": 0.1, "sizes": [2, 3]},
            "recipe_hash": hash_of(asdict(Recipe())),
            "data": {"dataset": "shapes", "edition": "official", "files": files, "split": "ef" * 32},
            "remeasured": {"last": {"test_error": 0.95}},
            "details": {"confusion_matrix": [[9000, 30], [65, 905]]},
        }
        return record(seed, **fields | changes)

    return sound


def other_recipe(c):
    c["recipe"]["rate"] = 0.2
    c["recipe_hash"] = hash_of(c["recipe"])


def measures(protocol="last", **values):
    return lambda c: c["metrics"].setdefault(protocol, {}).update(values)


NO_COMMIT = "its commit is unknown: git did not tell when it was made"
CHANGED = "its sources were changed from those of commit 1212121"
FAULTS = {
    "quick": (lambda c: c.update(preset="quick"), "not the full recipe"),
    "modified": (lambda c: c.update(modified=True), "not the full recipe"),
    "stand-in": (lambda c: c["data"].update(edition="stand-in"), "stand-in data"),
    "uncommitted": (lambda c: c["code"].update(committed=False), CHANGED),
    "no commit": (lambda c: c["code"].update(commit=None), NO_COMMIT),
    "other paper": (lambda c: c.update(paper="beta_2010"), "a record of beta_2010"),
    "lost variant": (lambda c: c.update(variant="narrow"), "alpha_2001 has no variant 'narrow'"),
    "one seed more": (lambda c: c.update(seed=3), "seed 3 is beyond the 3 that paper.yaml fixed"),
    "edited recipe": (lambda c: c.update(recipe_hash="ab" * 32), "its recipe does not match its hash"),
    "old recipe": (other_recipe, "made with a recipe other than today's: run it again"),
    "other dataset": (
        lambda c: c["data"].update(dataset="sizes"),
        "measured on sizes, but its variant is for shapes",
    ),
    "lost edition": (
        lambda c: c["data"].update(edition="lost"),
        "its edition 'lost' is not in the passport of shapes",
    ),
    "lost file": (
        lambda c: c["data"]["files"].pop("test.bin"),
        "its data files are not those of shapes (official)",
    ),
    "other file": (
        lambda c: c["data"]["files"].update({"test.bin": "00" * 32}),
        "test.bin was not the file that its passport names",
    ),
    "not measured again": (lambda c: c.update(remeasured=None), "its weights were not measured again"),
    "other number": (
        lambda c: c.update(remeasured={"last": {"test_error": 0.96}}),
        "test_error (last) is 0.95, but was measured again as 0.96",
    ),
    "other matrix": (
        lambda c: c.update(details={"confusion_matrix": [[50, 0], [1, 49]]}),
        "test_error (last) is 0.95, but its confusion matrix gives 1.0",
    ),
    "other accuracy": (measures(oa=99.0), "oa (last) is 99.0, but its confusion matrix gives 99.05"),
    "no matrix": (
        lambda c: c.update(details={"confusion_matrix": [[1, 2], "12"]}),
        "its confusion matrix has no count for each pair of classes",
    ),
    "empty matrix": (
        lambda c: c.update(details={"confusion_matrix": []}),
        "its confusion matrix has no count for each pair of classes",
    ),
}
SOUND = {
    "as it is": lambda c: None,
    "of an older protocol": measures("best", test_error=3.0, oa=1.0),
    "accuracy of the matrix": measures(oa=99.05),
    "not measured by eval.py": lambda c: c["remeasured"]["last"].update(train_error=1.0),
    "trained on another device": lambda c: (
        c["environment"].update(device="a GPU"),
        c["remeasured"]["last"].update(test_error=0.96),
    ),
    "matrix of one of several protocols": lambda c: (
        c["remeasured"].update(best={"test_error": 3.0}),
        c.update(details={"confusion_matrix": [[1]]}),
    ),
}


def changed(made, change):
    content = copy.deepcopy(made.model_dump())
    change(content)
    return make_record(type(made), **content)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_and_told(paper, sound, name):
    change, said = FAULTS[name]
    assert record_faults(paper, changed(sound(), change)) == [said]


@pytest.mark.parametrize("name", SOUND)
def test_no_fault_is_found_where_none_is(paper, sound, name):
    assert record_faults(paper, changed(sound(), SOUND[name])) == []


def test_a_failed_record_has_no_numbers_but_needs_recipe_and_data(paper, sound):
    failed = {"status": "failed", "failure": "nan", "metrics": {}, "weights": None, "remeasured": None}
    failed |= {"curves": {}, "details": {}}
    assert record_faults(paper, sound(**failed)) == []
    assert len(record_faults(paper, changed(sound(**failed), other_recipe))) == 1


def test_a_file_of_which_the_passport_knows_no_sha256_may_be_any(toy, paper, sound):
    file = paths.PASSPORTS / "shapes.yaml"
    other = changed(sound(), lambda c: c["data"]["files"].update({"test.bin": "00" * 32}))
    text = file.read_text()
    file.write_text(text.replace(f"sha256: {hashlib.sha256(toy.content('test.bin')).hexdigest()}", "sha256: null"))
    assert file.read_text() != text and record_faults(toy.paper(), other) == []


def test_faults_of_a_paper_name_the_record(toy, paper, sound):
    toy.publish(sound(0), sound(1))
    assert paper_faults(paper) == []
    toy.publish(changed(sound(1), other_recipe))
    place = "results/records/alpha_2001/plain/official/seed-1.json"
    assert paper_faults(paper) == [f"{place}: made with a recipe other than today's: run it again"]


def test_a_seed_that_is_left_out_is_missed(toy, paper, sound):
    toy.publish(sound(0), sound(2))
    assert paper_faults(paper) == ["plain (official): seeds 0, 2 leave one out"]


def test_weights_are_those_of_one_record(toy, paper, sound):
    def named(seed, file):
        return sound(seed, weights={"sha256": "56" * 32, "file": f"results/weights/alpha_2001/{file}.safetensors"})

    folder = paths.WEIGHTS / "alpha_2001"
    folder.mkdir(parents=True)
    for name in ("own", "shared", "stray"):
        (folder / f"{name}.safetensors").touch()
    content = toy.paper_content()
    content["variants"]["plain"]["seeds"] = 4
    paper = toy.paper(content=content)
    toy.publish(named(0, "own"), named(1, "shared"), named(2, "shared"), named(3, "gone"))
    place = "results/weights/alpha_2001"
    assert paper_faults(paper) == [
        f"{place}/gone.safetensors: is not there",
        f"{place}/shared.safetensors: does not belong to exactly one record",
        f"{place}/stray.safetensors: does not belong to exactly one record",
    ]


RELEASED_FAULTS = {
    "not named": (lambda c: c.update(id="ours"), "alpha_2001 knows no released weights 'ours'"),
    "another paper's": (lambda c: c.update(paper="beta_2010"), "alpha_2001 knows no released weights 'theirs'"),
    "measured elsewhere": (
        lambda c: c["data"].update(dataset="squares"),
        "measured on squares, which paper.yaml does not name for theirs",
    ),
    "another file": (
        lambda c: c["weights"].update(name="test.bin"),
        "its weights are not the train.bin that the passport of shapes names",
    ),
    "another content": (
        lambda c: c["weights"].update(sha256="0" * 64),
        "its weights are not the train.bin that the passport of shapes names",
    ),
    "uncommitted": (lambda c: c["code"].update(committed=False), CHANGED),
    "no commit": (lambda c: c["code"].update(commit=None), NO_COMMIT),
    "another edition": (
        lambda c: c["data"].update(edition="other"),
        "its edition 'other' is not in the passport of shapes",
    ),
    "other files": (
        lambda c: c["data"]["files"].pop("test.bin"),
        "its data files are not those of shapes (official)",
    ),
    "a file with other content": (
        lambda c: c["data"]["files"].update({"test.bin": "0" * 64}),
        "test.bin was not the file that its passport names",
    ),
}


@pytest.mark.parametrize("name", RELEASED_FAULTS)
def test_each_fault_of_a_record_of_released_weights_is_found(toy, released_record, name):
    change, fault = RELEASED_FAULTS[name]
    paper, sound = toy.paper(content=toy.released_content()), released_record()
    assert released_faults(paper, sound) == []
    content = copy.deepcopy(sound.model_dump())
    change(content)
    assert released_faults(paper, type(sound).model_validate(content)) == [fault]


def test_faults_of_released_weights_are_among_the_papers(toy, released_record, monkeypatch):
    paper = toy.paper(content=toy.released_content())
    broken = released_record(weights={"name": "train.bin", "sha256": "0" * 64})
    toy.publish(broken)
    (fault,) = paper_faults(paper)
    assert fault.startswith("results/records/alpha_2001/released/theirs/shapes.json: its weights are not the train.bin")


def test_measurements_agree_but_for_the_last_bits():
    one = {"last": {"psnr": 30.0, "ssim": 0.9}, "best": {"psnr": 31.0}}
    assert differences(one, one) == [] and same(30.0, 30.0 + 1e-4) and not same(30.0, 30.001)
    other = {"last": {"psnr": 30.0 + 1e-5, "ssim": 0.91}, "first": {"psnr": 31.0}}
    assert differences(one, other) == [
        "ssim (last) is 0.9, recorded 0.91",
        "psnr (best) is 31.0, recorded None",
        "psnr (first) is None, recorded 31.0",
    ]
