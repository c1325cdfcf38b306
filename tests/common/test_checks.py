"""What is wrong with published records is found, each fault by itself and in its own words."""

import copy
import hashlib
from dataclasses import asdict, dataclass
from types import SimpleNamespace

import pytest
import yaml

from common.base import paths
from common.claims.papers import Paper
from common.data.passports import folder_digest
from common.publishing import checks
from common.publishing.checks import differences, number_faults, paper_faults, record_faults, released_faults, same
from common.publishing.plausible import environment_faults
from common.training.provenance import hash_of
from common.training.records import make_record


@dataclass(frozen=True)
class Recipe:
    rate: float = 0.1
    sizes: tuple[int, ...] = (2, 3)


@pytest.fixture
def paper(toy, monkeypatch) -> Paper:
    train = SimpleNamespace(
        recipe=lambda variant, preset: Recipe(),
        DEVICES=("cpu", "cuda"),
        metrics_of_curves=lambda curves, recipe: point(curves),
    )
    monkeypatch.setattr(Paper, "module", lambda paper, name: train)
    (toy.root / "requirements.txt").write_text("torch==2.9.1  # the models\n")
    return toy.paper()


def point(curves) -> dict:
    """What the paper takes from a curve, where it is drawn."""
    return {"best": {"train_error": min(curves["train_error"])}} if "train_error" in curves else {}


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
            "curves": {"loss": [1.0, 0.5 + seed]},
            "weights": {"sha256": f"{seed:02}" * 32},
            "times": {"wall_seconds": 60.0, "training_seconds": 50.0 + seed, "samples_per_second": 3.5},
        }
        return record(seed, **fields | changes)

    return sound


def other_recipe(c):
    c["recipe"]["rate"] = 0.2
    c["recipe_hash"] = hash_of(c["recipe"])


def measures(protocol="last", **values):
    return lambda c: c["metrics"].setdefault(protocol, {}).update(values)


def runs_on(**changes):
    return lambda c: c["environment"].update(changes)


def on_avx2(precision, **recipe):
    """A recipe with this precision wanted, and the precision that the record says it got."""

    def change(c):
        c["environment"].update(instruction_set="AVX2", precision=precision)
        c["recipe"].update(recipe)

    return change


def missed(*pairs):
    """A test set of 100 of which these were misclassified: each its class and what it was taken for."""

    def change(c):
        c["metrics"]["last"]["test_error"] = c["remeasured"]["last"]["test_error"] = 2.0
        misclassified = [[number, *pair] for number, pair in enumerate(pairs)]
        c.update(details={"confusion_matrix": [[49, 1], [1, 49]], "misclassified": misclassified})

    return change


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
    "other protocol": (
        lambda c: c["metrics"].update({"invented": {"test_error": 1.0}}),
        "metrics.invented: is not a protocol of paper.yaml",
    ),
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
    "another list": (
        missed((0, 1), (0, 1)),
        "its list of what was misclassified is not that of its confusion matrix",
    ),
    "another epoch": (
        lambda c: (c["curves"].update(train_error=[3.0, 2.0]), measures("best", train_error=1.0)(c)),
        "train_error (best) is 1.0, but its curve has 2.0",
    ),
    "no such epoch": (
        lambda c: c["curves"].update(train_error=[]),
        "its curves lack a point that a number of it is taken from",
    ),
    "a coming torch": (runs_on(torch="2.10.0"), "torch 2.10.0 is not a version that requirements.txt knows of"),
    "no torch": (runs_on(torch="newest"), "torch newest is not a version that requirements.txt knows of"),
    "another processor's instructions": (
        runs_on(system="Darwin arm64", instruction_set="AVX512"),
        "a processor of Darwin arm64 has no AVX512",
    ),
    "units without AVX-512": (
        runs_on(instruction_set="AVX2 with avx512_bf16"),
        "a processor of Linux x86_64 has no AVX2 with avx512_bf16",
    ),
    "bfloat16 without units": (
        on_avx2("bfloat16"),
        "its precision is bfloat16, but on that device its recipe gives float32",
    ),
    "other flags": (
        lambda c: c["environment"]["deterministic"].update(tf32=True),
        "its flags are not those of a deterministic run",
    ),
    "no flags": (
        lambda c: c["environment"]["deterministic"].clear(),
        "its flags are not those of a deterministic run",
    ),
    "several processes": (
        runs_on(processes=2),
        "was trained by 2 processes, but alpha_2001 trains in one",
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
    "what was misclassified": missed((0, 1), (1, 0)),
    "the best epoch": lambda c: (c["curves"].update(train_error=[3.0, 2.0]), measures("best", train_error=2.0)(c)),
    "an older torch": runs_on(torch="2.8.2+cu130"),
    "with units": runs_on(instruction_set="AVX512 with avx512_bf16", precision="bfloat16"),
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


def test_files_known_by_one_hash_of_all_are_checked_by_it(toy, paper, sound):
    """Where nobody publishes a checksum of each."""
    record, file = sound(), paths.PASSPORTS / "shapes.yaml"
    content = yaml.safe_load(file.read_text())
    content["editions"]["official"] |= {"files": {}, "folders": {"x": 2}, "digest": folder_digest(record.data.files)}
    file.write_text(yaml.safe_dump(content))
    assert record_faults(toy.paper(), record) == []
    other = changed(record, lambda c: c["data"]["files"].update({"test.bin": "00" * 32}))
    assert record_faults(toy.paper(), other) == ["its data files are not those of shapes (official)"]


def test_faults_of_a_paper_name_the_record(toy, paper, sound):
    toy.publish(sound(0), sound(1))
    assert paper_faults(paper) == []
    toy.publish(changed(sound(1), other_recipe))
    place = "results/records/alpha_2001/plain/official/seed-1.json"
    assert paper_faults(paper) == [f"{place}: made with a recipe other than today's: run it again"]


def test_a_seed_that_is_left_out_is_missed(toy, paper, sound):
    toy.publish(sound(0), sound(2))
    assert paper_faults(paper) == ["plain (official): seeds 0, 2 leave one out"]


SHARED = {
    "weights": {"weights": {"sha256": "00" * 32}},
    "curves": {"curves": {"loss": [1.0, 0.5]}},
    "times": {"times": {"wall_seconds": 60.0, "training_seconds": 50.0, "samples_per_second": 3.5}},
}


@pytest.mark.parametrize("what", SHARED)
def test_no_two_runs_share_what_no_two_can(toy, paper, sound, what):
    toy.publish(sound(0), sound(1, **SHARED[what]))
    folder = "results/records/alpha_2001/plain/official"
    assert paper_faults(paper) == [f"{folder}/seed-1.json: has the {what} of {folder}/seed-0.json"]


def test_a_seed_may_end_with_the_same_weights_on_another_edition(toy, paper, sound):
    bundle = {"shapes.npz": hashlib.sha256(toy.content("shapes.npz", "bundle")).hexdigest()}
    data = {"dataset": "shapes", "edition": "bundle", "files": bundle, "split": "ef" * 32}
    toy.publish(sound(0), sound(0, data=data))
    assert paper_faults(paper) == []


def test_weights_are_those_of_one_record_and_called_after_its_variant(toy, paper, sound):
    def named(seed, file, variant="plain"):
        weights = {"sha256": f"{seed:02}" * 32, "file": f"results/weights/alpha_2001/{file}.safetensors"}
        return sound(seed, weights=weights, variant=variant)

    folder = paths.WEIGHTS / "alpha_2001"
    folder.mkdir(parents=True)
    for name in ("plain", "stray"):
        (folder / f"{name}.safetensors").touch()
    toy.publish(named(0, "plain"), named(1, "plain"), named(2, "wide"))
    place, third = "results/weights/alpha_2001", "results/records/alpha_2001/plain/official/seed-2.json"
    assert paper_faults(paper) == [
        f"{place}/wide.safetensors: is not there",
        f"{place}/plain.safetensors: does not belong to exactly one record",
        f"{place}/stray.safetensors: does not belong to exactly one record",
        f"{third}: {place}/wide.safetensors is not called plain",
    ]


PRECISIONS = {
    "what the recipe says": ("float32", "AMD EPYC", "AVX512 with avx512_bf16", "bfloat16", "float32"),
    "the fastest with units": ("fast", "AMD EPYC", "AVX512 with avx512_bf16", "float32", "bfloat16"),
    "the fastest with slow units": ("fast", "Intel(R) Xeon(R)", "AVX512 with avx512_bf16", "bfloat16", "float32"),
    "the fastest with AMX": ("fast", "Intel(R) Xeon(R)", "AVX512 with avx512_bf16 and amx_bf16", "float32", "bfloat16"),
    "the fastest without": ("fast", "AMD EPYC", "AVX512", "bfloat16", "float32"),
}


@pytest.mark.parametrize(("wanted", "processor", "instructions", "wrong", "right"), PRECISIONS.values(), ids=PRECISIONS)
def test_the_precision_is_what_the_recipe_gives_there(paper, sound, wanted, processor, instructions, wrong, right):
    here = {"processor": processor, "device": processor, "instruction_set": instructions}
    used = sound().environment.model_copy(update=here)
    for precision, faults in ((wrong, 1), (right, 0)):
        there = used.model_copy(update={"precision": precision})
        assert len(list(environment_faults(paper, there, {"precision": wanted}))) == faults


def test_what_a_gpu_computes_in_and_by_which_torch(paper, sound, monkeypatch):
    used = sound().environment.model_copy(update={"device": "NVIDIA H100"})
    for precision in ("bfloat16", "float32"):
        there = used.model_copy(update={"precision": precision})
        assert list(environment_faults(paper, there, {"precision": "fast"})) == []
    there = used.model_copy(update={"torch": "2.8.0+cpu"})
    assert list(environment_faults(paper, there, {})) == ["torch 2.8.0+cpu does not run on NVIDIA H100"]
    monkeypatch.setattr(paper.module("train"), "DEVICES", ("cpu",))
    assert list(environment_faults(paper, used, {})) == ["its device is NVIDIA H100, but alpha_2001 runs on cpu only"]


def test_what_the_recipe_rules_out_was_not_compiled(paper, sound):
    used = sound().environment.model_copy(update={"compiled": "kernel.c by cc"})
    said = ["was compiled (kernel.c by cc), which its recipe rules out"]
    for recipe, faults in (({"compiled": False}, said), ({"compiled": True}, []), ({}, [])):
        assert list(environment_faults(paper, used, recipe)) == faults
    on_gpu = used.model_copy(update={"device": "NVIDIA H100", "compiled": "training step as a CUDA graph"})
    assert list(environment_faults(paper, on_gpu, {"compiled": False})) == []


def test_a_number_measured_once_more_may_be_off_its_curve_by_an_example(paper, sound):
    curves = {"train_error": [2.0]}
    for off, faults in ((0.5, 0), (1.5, 1)):  # in training examples
        value = 2.0 + off * paper.count("plain", "train_error")
        numbers = {"best": {"train_error": value}}
        assert (
            len(record_faults(paper, sound(metrics=numbers, remeasured=numbers, curves=curves, details={}))) == faults
        )


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
    "not in float32": (
        lambda c: c["environment"].update(precision="bfloat16"),
        "its precision is bfloat16, but on that device its recipe gives float32",
    ),
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
def test_each_fault_of_a_record_of_released_weights_is_found(toy, paper, released_record, name):
    change, fault = RELEASED_FAULTS[name]
    paper, sound = toy.paper(content=toy.released_content()), released_record()
    assert released_faults(paper, sound) == []
    content = copy.deepcopy(sound.model_dump())
    change(content)
    assert released_faults(paper, type(sound).model_validate(content)) == [fault]


def test_faults_of_released_weights_are_among_the_papers(toy, paper, released_record):
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


def test_what_another_number_of_threads_adds_up_otherwise_is_the_same_number(toy, record, monkeypatch):
    monkeypatch.setattr(checks, "_curve_faults", lambda paper, record: [])
    paper, value = toy.paper(), record(0).metrics["last"]["test_error"]
    for again, found in ((value, False), (value * (1 + 1e-14), False), (value + 0.01, True)):
        measured = record(0).model_copy(update={"remeasured": {"last": {"test_error": again}}})
        assert any("measured again" in fault for fault in number_faults(paper, measured)) == found
