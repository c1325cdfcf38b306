"""What people mistype, and what they find on their disks: one or two clear lines, the documented
exit code, and nothing written."""

import gzip
import hashlib
import io
import json
import pickle
import re
import sys

import numpy as np
import pytest
import safetensors.numpy
import yaml

from common.cli.commands import main
from tests.contract.helpers import PAPER, ROOT, Ended, assert_told, content, copy_sources, run, seed_folder, smoke

WEIGHTS = ROOT / "results" / "weights" / PAPER / "lenet5.safetensors"

MISTYPED = [
    (["lenet5_1999"], "'lenet5_1999' is neither a paper nor a command. Did you mean lenet5_1998?"),
    (["tabel"], "'tabel' is neither a paper nor a command. Did you mean table?"),
    (["xyzzy"], "'xyzzy' is neither a paper nor a command. `bash reproduce.sh` lists them."),
    (["--jsn"], "There is no option --jsn. Did you mean --json?"),
    (["publish", PAPER, "--released", "--replace"], "--replace does not go with --released."),
    (["--json", "cite", PAPER], "--json comes after the command: bash reproduce.sh cite ... --json."),
    (["all", "--variant", "lenet5"], "all takes no --variant: each paper has its own."),
    ([PAPER, "--variant", "lenet"], "has no variant 'lenet'", "Did you mean lenet5?"),
    ([PAPER, "--preset", "smok"], "'smok' is not one of full, quick, smoke. Did you mean smoke?"),
    ([PAPER, "--device", "gpu"], "'gpu' is not one of auto, cpu, cuda."),
    ([PAPER, "--data", "reel"], "Did you mean real?"),
    ([PAPER, "--sedes", "0"], "There is no option --sedes. Did you mean --seeds?"),
    ([PAPER, "--passess", "3"], "There is no option --passess. Did you mean --passes?"),
    ([PAPER, "--passess=3"], "There is no option --passess. Did you mean --passes?"),
    ([PAPER, "-x"], "'-x' is not an option."),
    ([PAPER, "passes", "3"], "'passes' is not an option."),
    ([PAPER, "--passes"], "--passes needs a value."),
    ([PAPER, "--seeds"], "'--seeds' requires an argument."),
    ([PAPER, "--passes", "many"], "--passes many: Input should be a valid integer"),
    ([PAPER, "--passes", "2.5"], "--passes 2.5: Input should be a valid integer"),
    ([PAPER, "--mu", "nan"], "--mu nan: Input should be a finite number"),
    ([PAPER, "--compiled", "perhaps"], "--compiled perhaps: Input should be a valid boolean"),
    ([PAPER, "--order", "reverse"], "--order reverse: Input should be 'constant' or 'fresh'"),
    ([PAPER, "--eta", "[[20]]"], "--eta [[20]]: Field required"),
    ([PAPER, "--eta", "[[20,"], "--eta [[20,: Invalid JSON"),
    ([PAPER, "--seeds", "one,two"], "'one,two': seeds are whole numbers"),
    ([PAPER, "--seeds", "0,,1"], "'0,,1': seeds are whole numbers"),
    ([PAPER, "--seeds", ""], "'': seeds are whole numbers"),
    ([PAPER, "--seeds", "-1"], "'-1': seeds are whole numbers"),
    ([PAPER, "--seeds", "1.5"], "'1.5': seeds are whole numbers"),
    ([PAPER, "--data-dir", __file__], "'--data-dir'", "is a file"),
    (["table", "--jsno"], "There is no option --jsno."),
    (["eval"], "Missing argument 'PAPER'."),
    (["eval", "lenet5"], "No paper is called 'lenet5'. Did you mean lenet5_1998?"),
    (["eval", PAPER, "--variant", "blogg"], "Did you mean blog?"),
    (["eval", PAPER, "--image", "photo.jpg"], "lenet5_1998 does not restore pictures: --image is not for it."),
    (["eval", PAPER, "--output", "photo.png"], "--output goes with --image."),
    (["data", "mnits"], "'mnits' is neither a paper nor a dataset. Did you mean mnist?"),
    (["publish", "lenet5"], "Did you mean lenet5_1998?"),
    (["publish", PAPER], "holds nothing to publish"),
    (["verify", "lenet5"], "Did you mean lenet5_1998?"),
    (["cite", "lenet5"], "Did you mean lenet5_1998?"),
    (["bench", "lenet5"], "Did you mean lenet5_1998?"),
]  # fmt: skip


def here(capsys, *words) -> Ended:
    """The end of a command that this very process runs: for those that end before they do anything."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return Ended(ended.value.code, *capsys.readouterr())


@pytest.mark.parametrize("case", MISTYPED, ids=lambda case: " ".join(case[0]))
def test_a_slip_ends_with_2_says_which_and_suggests_the_nearest(case, capsys, tmp_path, monkeypatch):
    words, *said = case
    if words[0] in (PAPER, "publish"):
        words = [*words[:1], *(["--runs-dir", tmp_path / "runs"]), *words[1:]]
    ended = here(capsys, *words)
    assert_told(ended, 2, *said)
    assert ended.out == "" and content(tmp_path) == {}


TOO_LONG = "x" * 300


@pytest.mark.parametrize(
    "words",
    [
        ("list", PAPER), ("publish", PAPER, "--runs-dir", TOO_LONG), ("eval", PAPER, "--weights", TOO_LONG),
        (PAPER, "--data-dir", TOO_LONG),
    ],
    ids=lambda words: " ".join(words).replace(TOO_LONG, "x..."),
)  # fmt: skip
def test_a_name_that_is_too_long_is_told(words, capsys, monkeypatch):
    if words[0] == "list":
        monkeypatch.setenv("REPRO_DATA", TOO_LONG)
    ended = here(capsys, *words)
    assert ended.code == 2 and TOO_LONG in ended.err and "name too long" in ended.err.lower()


def test_a_terminal_that_lacks_a_character_shows_a_question_mark(monkeypatch):
    monkeypatch.setattr("common.cli.listing.show_papers", lambda as_json: print("0.95 \N{PLUS-MINUS SIGN} 0.09"))
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    with pytest.raises(SystemExit) as ended:
        main([])
    assert (ended.value.code, sys.stdout.buffer.getvalue()) == (0, b"0.95 ? 0.09\n")


def test_the_help_of_all_names_no_variant(capsys):
    ended = here(capsys, "all", "--help")
    assert ended.code == 0 and "--preset" in ended.out and "--variant" not in ended.out


def test_the_help_of_a_paper_with_two_kinds_of_recipe_has_the_fields_of_both(capsys):
    ended = here(capsys, "resnet", "--help")
    assert ended.code == 0 and "--milestones" in ended.out and "--patience" in ended.out
    assert "of resnet20 and the like" in ended.out and "of imagenet-plain18 and the like" in ended.out


@pytest.mark.parametrize("words", [[], ["data"], ["data", "mnist"], [PAPER, "--runs-dir"]], ids=" ".join)
def test_a_repro_data_that_is_no_folder_is_told_as_data_dir_is(words, capsys, tmp_path, monkeypatch):
    words = [*words, tmp_path / "runs"] if "--runs-dir" in words else words
    monkeypatch.setenv("REPRO_DATA", str(tmp_path / "nowhere"))
    assert_told(here(capsys, *words), 3, f"REPRO_DATA {tmp_path / 'nowhere'}: no such folder.")
    monkeypatch.setenv("REPRO_DATA", __file__)
    assert_told(here(capsys, *words), 2, f"REPRO_DATA {__file__}: is a file, not a folder.")
    assert content(tmp_path) == {}


def test_a_folder_that_was_deleted_under_ones_feet_ends_with_5(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    assert_told(here(capsys, PAPER, "--preset", "smoke"), 5, "has been deleted: start it in another.")


def test_cuda_without_a_cuda_device_ends_with_5(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    ended = here(capsys, *smoke(tmp_path, "--device", "cuda"))
    assert_told(ended, 5, "--device cuda: PyTorch finds no CUDA device here. Use --device cpu.")
    assert content(tmp_path) == {}


# ---- data: a copy of the repository with a small MNIST of its own and no network ----------------

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"


def idx(*shape: int) -> bytes:
    values = np.arange(np.prod(shape)) % 10
    head = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes()
    return gzip.compress(head + values.astype(np.uint8).tobytes(), mtime=0)


SMALL_MNIST = {
    TRAIN_IMAGES: idx(20, 28, 28), TRAIN_LABELS: idx(20),
    TEST_IMAGES: idx(10, 28, 28), TEST_LABELS: idx(10),
}  # fmt: skip


@pytest.fixture
def house(tmp_path):
    """A copy of the sources whose passport is that of SMALL_MNIST."""
    root = tmp_path / "house"
    copy_sources(root, "common", "papers")
    file = root / "common" / "data" / "passports" / "mnist.yaml"
    passport = yaml.safe_load(file.read_text())
    passport["editions"] = {"official": passport["editions"]["official"]}
    passport["editions"]["official"]["files"] = {
        name: {"sha256": hashlib.sha256(held).hexdigest(), "bytes": len(held), "urls": [f"http://127.0.0.1:9/{name}"]}
        for name, held in SMALL_MNIST.items()
    }
    file.write_text(yaml.safe_dump(passport, sort_keys=False))
    return root


@pytest.fixture
def disk(tmp_path):
    """A data folder with SMALL_MNIST in it."""
    folder = tmp_path / "disk" / "mnist"
    folder.mkdir(parents=True)
    for name, held in SMALL_MNIST.items():
        (folder / name).write_bytes(held)
    return folder.parent


def truncate(folder):
    (folder / TRAIN_IMAGES).write_bytes(SMALL_MNIST[TRAIN_IMAGES][:-10])


def swap(folder):
    (folder / TRAIN_LABELS).write_bytes(SMALL_MNIST[TEST_LABELS])
    (folder / TEST_LABELS).write_bytes(SMALL_MNIST[TRAIN_LABELS])


def alter(folder):
    held = SMALL_MNIST[TEST_IMAGES]
    (folder / TEST_IMAGES).write_bytes(held[:-1] + bytes([held[-1] ^ 1]))


def lose(folder):
    (folder / TEST_LABELS).unlink()


def hide(folder):
    (folder / TEST_LABELS).unlink()
    (folder / TEST_LABELS).mkdir()


DAMAGED = [
    (truncate, TRAIN_IMAGES, r"is not what its passport says \([\d,]+ bytes instead of [\d,]+\)"),
    (swap, TRAIN_LABELS, r"is not what its passport says"),
    (alter, TEST_IMAGES, r"is not what its passport says \(altered content\)"),
    (hide, "mnist", r"Is a directory"),
]


@pytest.mark.parametrize("mode", ["real", "auto"])
@pytest.mark.parametrize(("damage", "name", "said"), DAMAGED, ids=lambda value: getattr(value, "__name__", ""))
def test_damaged_data_ends_with_3_and_never_becomes_the_stand_in(house, disk, tmp_path, mode, damage, name, said):
    damage(disk / "mnist")
    before = content(tmp_path)
    ended = run(PAPER, "--data", mode, "--data-dir", disk, root=house, log=tmp_path / "log")
    assert_told(ended, 3, name)
    assert re.search(said, ended.err)
    assert {name: held for name, held in content(tmp_path).items() if not name.startswith("log")} == before


def test_real_data_that_lacks_a_file_ends_with_3(house, disk, tmp_path):
    lose(disk / "mnist")
    ended = run(PAPER, "--data", "real", "--data-dir", disk, root=house, log=tmp_path / "log")
    assert ended.code == 3 and "Traceback" not in ended.err
    assert f"{disk / 'mnist' / TEST_LABELS} is missing. Fetching it." in ended.complaint[0]
    assert "could not be fetched: no connection. Put it into data/mnist, or name " in ended.complaint[-1]


def test_data_that_may_not_be_read_ends_with_3(house, disk, tmp_path):
    words = [PAPER, "--data", "real", "--data-dir", disk]
    assert_told(run(*words, root=house, log=tmp_path / "log", fault="open:train-images:EACCES"), 3, "Permission denied")


def test_a_data_folder_that_is_not_there_ends_with_3(house, tmp_path):
    ended = run(PAPER, "--data-dir", tmp_path / "nowhere", root=house, log=tmp_path / "log")
    assert_told(ended, 3, f"--data-dir {tmp_path / 'nowhere'}: no such folder.")


@pytest.mark.parametrize("words", [[PAPER, "--data", "real"], ["eval", PAPER, "--weights", WEIGHTS], ["data", "mnist"]])
def test_real_data_that_cannot_be_had_ends_with_3_and_leaves_no_trace(house, tmp_path, words):
    (tmp_path / "empty").mkdir()
    before = content(house)
    if words[0] != "data":
        words = [*words, "--data-dir", tmp_path / "empty"]
    ended = run(*words, root=house, log=tmp_path / "log")
    assert ended.code == 3 and "Traceback" not in ended.err
    assert "train-images-idx3-ubyte.gz could not be fetched: no connection." in ended.complaint[-1]
    assert content(house) == before


# ---- weights ------------------------------------------------------------------------------------


def missing(path, good):
    pass


def of_another_model(path, good):
    safetensors.numpy.save_file({"fc.weight": np.zeros((10, 784), np.float32)}, path)


def of_another_shape(path, good):
    weights = safetensors.numpy.load_file(good)
    safetensors.numpy.save_file(weights | {"F6.bias": np.zeros(85, np.float32)}, path)


def cut(path, good):
    path.write_bytes(good.read_bytes()[:1000])


def pickled(path, good):
    path.write_bytes(pickle.dumps({"F6.bias": [0.0] * 84}))


@pytest.fixture(scope="module")
def good_weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    words = smoke(folder, "--train-patterns", "20")  # the made-up MNIST that measures them has no more
    assert run(*words, log=folder).code == 0
    return seed_folder(folder) / "weights.safetensors"


BAD_WEIGHTS = [
    (missing, "no such weights file."),
    (of_another_model, "These are weights of another model: "),
    (of_another_shape, "weights of another model: it wants F6.bias (84,); they have F6.bias (85,)."),
    (cut, "is not a whole safetensors file"),
    (pickled, "A state dict that torch.save wrote is called .pth or .pt."),
]


@pytest.mark.parametrize(("make", "said"), BAD_WEIGHTS, ids=lambda value: getattr(value, "__name__", ""))
def test_weights_that_cannot_be_used_end_with_2(house, disk, tmp_path, good_weights, make, said):
    make(tmp_path / "weights", good_weights)
    words = ["eval", PAPER, "--weights", tmp_path / "weights", "--data-dir", disk]
    ended = run(*words, root=house, log=tmp_path / "log")
    assert_told(ended, 2, said)
    assert ended.out == ""


def test_weights_that_say_they_are_another_variants_or_papers_end_with_2(capsys, good_weights):
    ended = here(capsys, "eval", PAPER, "--variant", "blog", "--weights", good_weights)
    assert_told(ended, 2, f"{good_weights} holds weights of {PAPER} / lenet5, not of {PAPER} / blog.")
    ended = here(capsys, "eval", "hybridsn", "--weights", good_weights)
    assert_told(ended, 2, f"Measure them with `eval {PAPER} --variant lenet5`.")


def test_weights_are_measured_as_the_variant_that_they_name(house, disk, tmp_path, good_weights):
    weights = safetensors.numpy.load_file(good_weights)
    metadata = {"run": f"{PAPER}/lenet5-distorted/seed-0"}
    safetensors.numpy.save_file(weights, tmp_path / "weights", metadata)
    words = ["eval", PAPER, "--weights", tmp_path / "weights", "--data-dir", disk, "--json"]
    ended = run(*words, root=house, log=tmp_path / "log")
    assert_told(ended, 0, f"{tmp_path / 'weights'} is measured as lenet5-distorted, which it says it is.")
    assert json.loads(ended.out)[0]["metrics"]


def test_good_weights_would_have_been_measured(house, disk, tmp_path, good_weights):
    words = ["eval", PAPER, "--weights", good_weights, "--data-dir", disk]
    assert run(*words, root=house, log=tmp_path / "log").code == 0


# ---- files of the repository ----------------------------------------------------------------------


def replaced(old: str, new: str):
    return lambda text: text.replace(old, new, 1)


BROKEN_PAPERS = [
    ("no YAML", replaced("citation:", "citation: ["), "cannot be read: "),
    ("empty", lambda text: "", "the file: Input should be"),
    ("missing", replaced("    protocol: last\n", ""), "claims.lenet5-test.protocol: is missing"),
    ("unknown", replaced("    protocol: last\n", "    protocol: last\n    mood: good\n"), "mood: is unknown"),
    ("type", replaced("year: 1998", "year: long ago"), "citation.year: Input should be a valid integer"),
    ("number", replaced('"0.95"', '"about 1"'), "claims.lenet5-test.reported: "),
    ("metric", replaced("metric: test_error", "metric: test_eror"), "Did you mean test_error?"),
    ("tolerance", replaced("tolerance: 0.19", "tolerance: 0.5"), "tolerance: is 0.5, the rule gives 0.19"),
    ("variant", replaced("default_variant: lenet5", "default_variant: lenet6"), "'lenet6' is not a variant"),
    ("dataset", replaced("dataset: mnist", "dataset: minst"), "Did you mean mnist?"),
]  # fmt: skip


@pytest.mark.parametrize(("_", "break_it", "said"), BROKEN_PAPERS, ids=[name for name, *_ in BROKEN_PAPERS])
def test_a_broken_paper_yaml_ends_with_2_and_names_file_and_field(house, tmp_path, _, break_it, said):
    file = house / "papers" / PAPER / "paper.yaml"
    file.write_text(break_it(file.read_text()))
    ended = run(*smoke(tmp_path / "runs"), root=house, log=tmp_path / "log")
    assert_told(ended, 2, f"{file}: ", said)
    assert not (tmp_path / "runs").exists()


def test_a_broken_passport_ends_with_2_and_names_file_and_field(house, tmp_path):
    file = house / "common" / "data" / "passports" / "mnist.yaml"
    file.write_text(file.read_text().replace("terms:", "term:"))
    assert_told(run(root=house, log=tmp_path / "log"), 2, f"{file}: terms: is missing")


BROKEN_RECORDS = [
    ("no JSON", lambda record: "{", "cannot be read: "),
    ("missing", lambda record: {name: record[name] for name in record if name != "seed"}, "seed: is missing"),
    ("unknown", lambda record: record | {"mood": "good"}, "mood: is unknown here"),
    ("range", lambda record: record | {"metrics": {"last": {"test_error": 101.0}}}, "101.0 is out of range"),
    ("version", lambda record: record | {"schema_version": 99}, "schema_version: is 99"),
    ("place", lambda record: record | {"seed": 7}, "belongs at "),
]


@pytest.mark.parametrize(("_", "break_it", "said"), BROKEN_RECORDS, ids=[name for name, *_ in BROKEN_RECORDS])
def test_a_broken_record_ends_with_2_and_names_file_and_field(house, tmp_path, good_weights, _, break_it, said):
    broken = break_it(json.loads(good_weights.with_name("record.json").read_text()))
    file = house / "results" / "records" / PAPER / "lenet5" / "stand-in" / "seed-0.json"
    file.parent.mkdir(parents=True)
    file.write_text(broken if isinstance(broken, str) else json.dumps(broken))
    before = content(house)
    assert_told(run("table", root=house, log=tmp_path / "log"), 2, f"{file}: ", said)
    assert content(house) == before


@pytest.mark.parametrize("name", ["record.json", "run.json"])
def test_a_broken_file_in_a_run_folder_ends_with_2_and_is_named(tmp_path, tmp_path_factory, name):
    log = tmp_path_factory.mktemp("log")
    assert run(*smoke(tmp_path), log=log).code == 0
    file = seed_folder(tmp_path) / name
    file.write_text("{")
    before = content(tmp_path)
    assert_told(run(*smoke(tmp_path), log=log), 2, str(file), "Start over with --fresh.")
    assert content(tmp_path) == before
    assert run(*smoke(tmp_path, "--fresh"), log=log).code == 0
