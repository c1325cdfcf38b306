"""Weights: a hash of what they are, and nothing loaded that does not fit."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from common.base.errors import NumbersError, UsageError
from common.training.weights import (
    fit_weights,
    load_weights,
    named_before_rounding,
    named_recipe,
    named_run,
    rounded,
    save_weights,
    trained_as,
    weights_hash,
    widened,
)


def weights() -> dict[str, torch.Tensor]:
    return {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([0.5, -0.0])}


def test_the_hash_does_not_depend_on_order_layout_or_file(tmp_path):
    expected = weights_hash(weights())
    assert weights_hash(dict(reversed(weights().items()))) == expected
    strided = weights() | {"a.weight": weights()["a.weight"].t().contiguous().t()}
    assert weights_hash(strided) == expected
    with_gradient = {name: tensor.requires_grad_() for name, tensor in weights().items()}
    assert weights_hash(with_gradient) == expected
    for name in ("one.safetensors", "two.safetensors"):
        assert weights_hash(load_weights(save_weights(strided, tmp_path / name))) == expected


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_went_to_nan_are_not_measured(tmp_path, value):
    file = save_weights(weights() | {"a.bias": torch.tensor([0.5, value])}, tmp_path / "bad.safetensors")
    with pytest.raises(NumbersError, match="bad.safetensors: NaN or infinity in a.bias."):
        load_weights(file)


CHANGES = {
    "name": lambda w: {"b.weight": w["a.weight"], "a.bias": w["a.bias"]},
    "names swapped": lambda w: {"a.weight": w["a.bias"], "a.bias": w["a.weight"]},
    "shape": lambda w: w | {"a.weight": w["a.weight"].reshape(3, 2)},
    "type with the same bits": lambda w: w | {"a.weight": w["a.weight"].view(torch.int32)},
    "type with the same values": lambda w: w | {"a.weight": w["a.weight"].double()},
    "one bit": lambda w: w | {"a.weight": torch.nextafter(w["a.weight"], torch.tensor(9.0))},
    "sign of zero": lambda w: w | {"a.bias": torch.tensor([0.5, 0.0])},
    "one more": lambda w: w | {"c": torch.zeros(0)},
    "one less": lambda w: {"a.weight": w["a.weight"]},
}


@pytest.mark.parametrize("what", CHANGES)
def test_the_hash_depends_on_names_shapes_types_and_bits(what):
    assert weights_hash(CHANGES[what](weights())) != weights_hash(weights())


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
def test_weights_of_any_type_come_back_with_their_hash(tmp_path, kind):
    some = {name: torch.ones(shape, dtype=kind) for name, shape in (("one", ()), ("none", (0, 3)), ("many", (2, 3)))}
    assert weights_hash(load_weights(save_weights(some, tmp_path / "file"))) == weights_hash(some)


def test_a_file_says_what_it_holds_and_has_the_same_bytes_each_time(tmp_path):
    files = [save_weights(weights(), tmp_path / str(time), "alpha_2001/plain/seed-3") for time in range(5)]
    assert trained_as(files[0]) == ("alpha_2001", "plain")
    assert weights_hash(load_weights(files[0])) == weights_hash(weights())
    assert len({file.read_bytes() for file in files}) == 1
    assert named_recipe(files[0]) is None and named_before_rounding(files[0]) is None


def test_a_file_keeps_the_recipe_of_its_weights(tmp_path):
    recipe = {"subsample": "mean", "eta": [[2, 0.0005]], "held_out": None, "squash": False}
    files = [save_weights(weights(), tmp_path / str(time), "alpha_2001/plain/seed-3", recipe) for time in range(5)]
    assert (named_run(files[0]), named_recipe(files[0])) == ("alpha_2001/plain/seed-3", recipe)
    assert trained_as(files[0]) == ("alpha_2001", "plain")
    assert weights_hash(load_weights(files[0])) == weights_hash(weights())
    assert len({file.read_bytes() for file in files}) == 1


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"run": "of last week"}, {"run": "of 2001"}])
def test_a_file_that_does_not_say_what_it_holds_is_read_as_well(tmp_path, metadata):
    safetensors.torch.save_file(weights(), tmp_path / "file", metadata)
    assert trained_as(tmp_path / "file") is None and named_recipe(tmp_path / "file") is None
    assert weights_hash(load_weights(tmp_path / "file")) == weights_hash(weights())


def refused(path, expected: str) -> None:
    for read in (load_weights, trained_as):
        with pytest.raises(UsageError, match=expected) as told:
            read(path)
        assert str(path) in str(told.value)
        assert "\n" not in str(told.value)


@pytest.mark.parametrize("kept", [0, 4, 40, -1])
def test_a_truncated_file_is_refused(tmp_path, kept):
    path = save_weights(weights(), tmp_path / "file.safetensors")
    path.write_bytes(path.read_bytes()[:kept])
    refused(path, "not a whole safetensors file")


@pytest.mark.parametrize("nested", [False, True])
def test_a_state_dict_of_pytorch_is_read(tmp_path, nested):
    file = tmp_path / "model.pth"
    torch.save({"state_dict": weights(), "epoch": 3} if nested else weights(), file)
    assert weights_hash(load_weights(file)) == weights_hash(weights())
    assert trained_as(file) is named_recipe(file) is None
    torch.save({"a": torch.tensor(float("nan"))}, file)
    with pytest.raises(NumbersError, match="NaN or infinity in a"):
        load_weights(file)


class Trap:
    """Unpickled, it would do what it likes."""

    def __reduce__(self):
        return Path.touch, (Path("sprung"),)


@pytest.mark.parametrize("content", [Trap(), {"a": Trap()}, nn.Linear(1, 1)])
def test_no_code_in_a_file_is_run(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    torch.save(content, "model.pt")
    with pytest.raises(UsageError, match=r"^model.pt is not a state dict .* Save it with torch.save\(model.state_dict"):
        load_weights(Path("model.pt"))
    assert not Path("sprung").exists()


def test_files_of_pytorch_that_hold_no_state_dict_are_refused(tmp_path):
    file = tmp_path / "model.pt"
    for content in ([1.0], {"epoch": 3}, {"state_dict": [weights()]}):
        torch.save(content, file)
        with pytest.raises(UsageError, match="model.pt holds no state dict: a dict from names to tensors"):
            load_weights(file)
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(UsageError, match="model.pt is not a state dict that is read"):
        load_weights(file)
    with pytest.raises(UsageError, match="no such weights file"):
        load_weights(tmp_path / "lost.pth")
    torch.save(weights(), tmp_path / "model")
    refused(tmp_path / "model", "is called .pth or .pt.")


def test_no_file_and_a_folder_are_refused(tmp_path):
    refused(tmp_path / "nowhere", "no such weights file")
    refused(tmp_path, "no such weights file")


def test_weights_that_fit_are_put_in():
    model = nn.ModuleDict({"a": nn.Linear(3, 2)})
    fit_weights(model, weights())
    assert weights_hash(model.state_dict()) == weights_hash(weights())


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (nn.ModuleDict({"a": nn.Linear(3, 4)}), "a.bias"),  # other shapes
        (nn.ModuleDict({"b": nn.Linear(3, 2)}), "a.weight"),  # other names
        (nn.ModuleDict({"a": nn.Linear(3, 2), "b": nn.Linear(2, 2)}), "b.weight"),  # some missing
        (nn.ModuleDict({"a": nn.Linear(3, 2, bias=False)}), "a.bias"),  # some too many
    ],
)
def test_weights_of_another_model_are_refused_in_one_line(model, named):
    with pytest.raises(UsageError, match="weights of another model") as told:
        fit_weights(model, weights())
    assert named in str(told.value)
    assert "\n" not in str(told.value)


def test_the_names_and_shapes_that_are_wanted_are_told(tmp_path):
    linear = {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}
    with pytest.raises(UsageError) as told:
        fit_weights(nn.ModuleDict({"fc": nn.Linear(3, 2)}), linear)
    wanted, had = str(told.value).removeprefix("These are weights of another model: it wants ").split("; they have ")
    assert (wanted, had) == ("fc.weight (2, 3), fc.bias (2,)", "weight (2, 3), bias (2,).")
    with pytest.raises(UsageError, match=r" and 12 more; they have nothing more\.$"):
        fit_weights(nn.Sequential(*(nn.Linear(1, 1) for _ in range(10))), {})


# ---- float16 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [None, {"subsample": "mean"}])
def test_rounded_weights_come_back_as_float32_and_name_what_they_were(tmp_path, recipe):
    some = {"a": torch.tensor([1 / 3, -65504.0, 6e-8, 1e-9]), "pixels": torch.tensor([70001, 3], dtype=torch.int32)}
    before, run = weights_hash(some), "alpha_2001/plain/seed-3"
    files = [save_weights(rounded(some), tmp_path / str(k), run, recipe, rounded_from=before) for k in range(5)]
    back = load_weights(files[0])
    assert back["a"].dtype == torch.float32
    assert back["a"].tolist() == [0.333251953125, -65504.0, 2**-24, 0.0]
    assert torch.equal(back["pixels"], some["pixels"])
    assert (named_run(files[0]), named_before_rounding(files[0]), named_recipe(files[0])) == (run, before, recipe)
    assert len({file.read_bytes() for file in files}) == 1
    assert weights_hash(rounded(back)) == weights_hash(rounded(some))  # nothing is lost by loading
    assert weights_hash(widened(rounded(some))) == weights_hash(back)


@pytest.mark.parametrize("value", [65520.0, -70000.0])
def test_what_would_be_infinite_in_float16_is_not_rounded(value):
    with pytest.raises(NumbersError, match=rf"a.bias holds {abs(value):g}, but float16 ends at 65504"):
        rounded(weights() | {"a.bias": torch.tensor([0.5, value])})
