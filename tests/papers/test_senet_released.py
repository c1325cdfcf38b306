"""The weights for ImageNet that the authors released, as timm has them: how its files are read."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from common.base.errors import UsageError
from common.claims.papers import load_paper
from common.training.determinism import generator
from common.training.weights import fit_weights
from papers.senet import imagenet
from papers.senet.eval import predictor
from papers.senet.imagenet import MEAN, RELEASED
from papers.senet.released import COLOUR_DEVIATION, COLOUR_MEAN, our_name, read

PAPER = load_paper("senet")
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def theirs(variant: str, draw: torch.Generator) -> dict[str, Tensor]:
    """A state as in timm's files, of numbers as after some training. What it holds is written from timm's senet.py."""
    recipe = RELEASED[variant]
    cardinality = 32 if recipe.network == "imagenet-resnext" else 1
    state: dict[str, Tensor] = {}

    def convolution(name: str, outputs: int, inputs: int, kernel: int) -> None:
        fan_in = inputs * kernel**2
        drawn = torch.empty(outputs, inputs, kernel, kernel).normal_(0, (2 / fan_in) ** 0.5, generator=draw)
        state[f"{name}.weight"] = drawn

    def normalization(name: str, maps: int) -> None:
        for part, low in (("weight", 0.5), ("bias", -0.2), ("running_mean", -0.2), ("running_var", 0.8)):
            state[f"{name}.{part}"] = torch.empty(maps).uniform_(low, low + 0.5, generator=draw)

    convolution("layer0.conv1", 64, 3, 7)
    normalization("layer0.bn1", 64)
    inputs = 64
    for stage, blocks in enumerate(BLOCKS[recipe.depth], 1):
        outputs = 256 * 2 ** (stage - 1)
        width = outputs // (2 if cardinality > 1 else 4)
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            convolution(f"{name}.conv1", width, inputs, 1)
            convolution(f"{name}.conv2", width, width // cardinality, 3)
            convolution(f"{name}.conv3", outputs, width, 1)
            for number, maps in ((1, width), (2, width), (3, outputs)):
                normalization(f"{name}.bn{number}", maps)
            for layer, of in (("fc1", (outputs // 16, outputs)), ("fc2", (outputs, outputs // 16))):
                convolution(f"{name}.se_module.{layer}", *of, 1)
                state[f"{name}.se_module.{layer}.bias"] = torch.empty(of[0]).uniform_(-0.5, 0.5, generator=draw)
            if block == 0:
                convolution(f"{name}.downsample.0", outputs, inputs, 1)
                normalization(f"{name}.downsample.1", outputs)
            inputs = outputs
    state["last_linear.weight"] = torch.empty(1000, inputs).normal_(0, 0.02, generator=draw)
    state["last_linear.bias"] = torch.zeros(1000)
    return state


def said(state: dict[str, Tensor], pixels: Tensor, cardinality: int) -> Tensor:
    """What timm's network says: written from its senet.py, layer by layer."""

    def normalised(x: Tensor, name: str) -> Tensor:
        parts = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *parts, eps=1e-5)

    mean, deviation = (torch.tensor(values)[:, None, None] for values in (COLOUR_MEAN, COLOUR_DEVIATION))
    x = F.conv2d((pixels / 255 - mean) / deviation, state["layer0.conv1.weight"], stride=2, padding=3)
    x = F.max_pool2d(F.relu(normalised(x, "layer0.bn1")), 3, 2, ceil_mode=True)
    for stage in range(1, 5):
        blocks = {name.split(".")[1] for name in state if name.startswith(f"layer{stage}.")}
        for block in range(len(blocks)):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            first, second = (stride, 1) if cardinality == 1 else (1, stride)
            u = F.relu(normalised(F.conv2d(x, state[f"{name}.conv1.weight"], stride=first), f"{name}.bn1"))
            u = F.conv2d(u, state[f"{name}.conv2.weight"], stride=second, padding=1, groups=cardinality)
            u = normalised(F.conv2d(F.relu(normalised(u, f"{name}.bn2")), state[f"{name}.conv3.weight"]), f"{name}.bn3")
            s = u.mean((2, 3), keepdim=True)
            s = F.relu(F.conv2d(s, state[f"{name}.se_module.fc1.weight"], state[f"{name}.se_module.fc1.bias"]))
            s = F.conv2d(s, state[f"{name}.se_module.fc2.weight"], state[f"{name}.se_module.fc2.bias"]).sigmoid()
            if block == 0:
                x = normalised(F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride), f"{name}.downsample.1")
            x = F.relu(u * s + x)
    return F.linear(x.mean((2, 3)), state["last_linear.weight"], state["last_linear.bias"])


@pytest.mark.parametrize("variant", ["imagenet-se-resnet50-released", "imagenet-se-resnext50-released"])
def test_a_network_read_from_a_file_says_what_timms_says(tmp_path, variant):
    state, file, recipe = theirs(variant, generator(0, "weights")), tmp_path / "weights.pth", RELEASED[variant]
    torch.save(state, file)
    ours = read(file, recipe)
    ready = predictor(ours, recipe, lambda: pytest.fail("no training data is needed"))
    mean = ours.pop(MEAN)
    model = imagenet.build_model(recipe, 1000)
    fit_weights(model, ours)
    pixels = torch.randint(256, (2, 3, 64, 64), generator=generator(0, "pixels"), dtype=torch.uint8)
    with torch.inference_mode():
        expected = said(state, pixels, 32 if recipe.network == "imagenet-resnext" else 1)
        found = model.eval()(imagenet.as_input(pixels, mean))
        assert torch.equal(ready.eval()(pixels), found)
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("variant", RELEASED)
def test_every_tensor_of_timms_has_its_place_in_ours(variant):
    names = {our_name(name): tensor.numel() for name, tensor in theirs(variant, torch.Generator()).items()}
    with torch.device("meta"):
        ours = imagenet.build_model(RELEASED[variant], 1000).state_dict()
    assert names == {name: tensor.numel() for name, tensor in ours.items() if "num_batches" not in name}


def test_the_files_are_those_of_the_passport_and_check_no_claim():
    files = PAPER.dataset("timm_senets").editions["official"].files
    assert [released.file for released in PAPER.released] == list(files)
    assert [variant for released in PAPER.released for variant in released.variants] == list(RELEASED)
    assert not {claim.variant for claim in PAPER.claims} & set(RELEASED)


@pytest.mark.parametrize(
    "content", [b"", b"no weights", {"last_linear.weight": torch.zeros(1)}, {"other": torch.zeros(1)}]
)
def test_a_file_laid_out_otherwise_is_refused(tmp_path, content):
    file = tmp_path / "weights.pth"
    file.write_bytes(content) if isinstance(content, bytes) else torch.save(content, file)
    with pytest.raises(UsageError, match=r"weights\.pth is not laid out as timm's weights are \(.+\)\.$"):
        read(file, RELEASED["imagenet-se-resnet50-released"])
