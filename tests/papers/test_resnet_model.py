"""The networks of the ResNet paper against its tables, its definitions and torchvision's."""

from functools import partial

import pytest
import torch
import torchvision
from torch import nn

from common.base.errors import UsageError
from common.training.determinism import generator
from papers.resnet.model import (
    CIFAR_DEPTHS,
    IMAGENET_BLOCKS,
    CifarResNet,
    ImageNetResNet,
    PaddedIdentity,
    initialise,
)
from tests.papers import networks
from tests.papers.networks import multiply_adds, parameters, pictures

CIFAR_COUNTS = {  # depth: parameters with option A, with option B
    20: (269_722, 272_474),
    32: (464_154, 466_906),
    44: (658_586, 661_338),
    56: (853_018, 855_770),
    110: (1_727_962, 1_730_714),
    1202: (19_421_274, 19_424_026),
}
TABLE_6 = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.7, 1202: 19.4}  # million parameters
IMAGENET_COUNTS = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160, 152: 60_192_808}  # option B
TABLE_1 = {18: 1.8, 34: 3.6, 50: 3.8, 101: 7.6, 152: 11.3}  # billion multiply-adds


trained = partial(networks.trained, initialise=initialise)


FAMILIES = {"cifar": CifarResNet, "imagenet": ImageNetResNet}


def on_meta(family: str, *arguments, **named) -> nn.Module:
    """A network without numbers in it, for counts and shapes."""
    with torch.device("meta"):
        return FAMILIES[family](*arguments, **named)


# ---- sizes against the paper's tables -----------------------------------------------------


@pytest.mark.parametrize("depth", CIFAR_COUNTS)
def test_cifar_networks_have_the_parameters_of_table_6(depth):
    padded, projected = CIFAR_COUNTS[depth]
    assert parameters(on_meta("cifar", depth, "A")) == padded
    assert parameters(on_meta("cifar", depth, "B")) == projected
    assert f"{padded / 1e6:.2f}".startswith(str(TABLE_6[depth]))


def test_option_a_adds_no_parameters_and_90_more_classes_5850():
    padded, _ = CIFAR_COUNTS[56]
    assert parameters(on_meta("cifar", 56, "none")) == padded
    assert parameters(on_meta("cifar", 56, "A", classes=100)) == padded + 5_850


@pytest.mark.parametrize("depth", IMAGENET_COUNTS)
def test_imagenet_networks_have_the_parameters_of_torchvisions(depth):
    assert parameters(on_meta("imagenet", depth, "B")) == IMAGENET_COUNTS[depth]


def test_option_a_adds_no_parameters_on_imagenet():
    assert parameters(on_meta("imagenet", 18, "A")) == 11_515_688
    assert parameters(on_meta("imagenet", 34, "A")) == parameters(on_meta("imagenet", 34, "none")) == 21_623_848


@pytest.mark.parametrize("depth", TABLE_1)
def test_multiply_adds_are_those_of_table_1(depth):
    """To one unit of the last digit, for the paper rounds down at 50 layers (3.86). 18 and 34 have option A,
    as in its first comparison, the others B."""
    model = on_meta("imagenet", depth, "A" if depth < 50 else "B")
    assert multiply_adds(model) == pytest.approx(TABLE_1[depth], abs=0.1)


@pytest.mark.parametrize(("depth", "more"), [(50, 4.09), (101, 7.80), (152, 11.51)])
def test_version_1_5_takes_more_multiply_adds_than_table_1(depth, more):
    model = on_meta("imagenet", depth, "B", "3x3")
    assert parameters(model) == IMAGENET_COUNTS[depth]
    assert multiply_adds(model) == pytest.approx(more, abs=0.005)
    assert multiply_adds(model) > TABLE_1[depth] + 0.2


def weighted_layers(model: nn.Module) -> int:
    """What the paper counts as depth: convolutions and fully connected layers, without the shortcuts'."""
    return sum(
        isinstance(module, (nn.Conv2d, nn.Linear)) and ".shortcut." not in name
        for name, module in model.named_modules()
    )


@pytest.mark.parametrize("family", ["cifar", "imagenet"])
def test_the_depth_is_the_number_of_weighted_layers(family):
    for depth in CIFAR_DEPTHS if family == "cifar" else IMAGENET_BLOCKS:
        assert weighted_layers(on_meta(family, depth, "B")) == depth


def shapes(model: nn.Module, side: int) -> dict[str, tuple[int, ...]]:
    """What each part of the network gives for one picture: channels, height, width."""
    seen = {}
    for name, part in model.named_children():
        part.register_forward_hook(lambda _, inputs, output, name=name: seen.update({name: tuple(output.shape[1:])}))
    model(torch.empty(1, 3, side, side, device="meta"))
    return seen


def test_the_maps_for_cifar_have_the_sizes_of_section_4_2():
    assert shapes(on_meta("cifar", 20, "A"), 32) == {
        "conv1": (16, 32, 32), "maps32": (16, 32, 32), "maps16": (32, 16, 16), "maps8": (64, 8, 8), "fc": (10,),
    }  # fmt: skip


@pytest.mark.parametrize(("depth", "stride_at"), [*((depth, "1x1") for depth in IMAGENET_BLOCKS), (50, "3x3")])
def test_the_maps_for_imagenet_have_the_sizes_of_table_1(depth, stride_at):
    times = 4 if depth >= 50 else 1
    assert shapes(on_meta("imagenet", depth, "B", stride_at), 224) == {
        "conv1": (64, 112, 112), "pool": (64, 56, 56), "conv2_x": (64 * times, 56, 56),
        "conv3_x": (128 * times, 28, 28), "conv4_x": (256 * times, 14, 14), "conv5_x": (512 * times, 7, 7),
        "fc": (1000,),
    }  # fmt: skip


@pytest.mark.parametrize(("stride_at", "strides"), [("1x1", [2, 1, 1]), ("3x3", [1, 2, 1])])
def test_a_bottleneck_has_its_stride_where_it_is_asked_for(stride_at, strides):
    residual = on_meta("imagenet", 50, "B", stride_at).conv4_x[0].residual
    assert [layer.stride[0] for layer in residual if isinstance(layer, nn.Conv2d)] == strides


# ---- shortcuts ------------------------------------------------------------------------------


def test_option_a_subsamples_and_pads_with_zeros():
    x = pictures(2, 8)
    y = PaddedIdentity(new_maps=5, stride=2)(x)
    assert y.shape == (2, 8, 4, 4)
    for row in range(4):
        for column in range(4):
            assert torch.equal(y[:, :3, row, column], x[:, :, 2 * row, 2 * column])
    assert (y[:, 3:] == 0).all()


@pytest.mark.parametrize(
    ("option", "identities", "padded", "projections"),
    [("none", 0, 0, 0), ("A", 13, 3, 0), ("B", 13, 0, 3), ("C", 0, 0, 16)],
)
def test_each_option_has_its_shortcuts_in_resnet_34(option, identities, padded, projections):
    kinds = [type(block.shortcut) for block in blocks_of(on_meta("imagenet", 34, option))]
    assert len(kinds) == 16
    found = kinds.count(nn.Identity), kinds.count(PaddedIdentity), kinds.count(nn.Sequential)
    assert found == (identities, padded, projections)


def blocks_of(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if hasattr(module, "residual")]


@pytest.mark.parametrize("option", ["none", "A", "B"])
def test_a_block_adds_its_shortcut_before_the_last_relu(option):
    block = trained(CifarResNet(8, option)).maps16[0]
    x = pictures(2, 16).repeat(1, 6, 1, 1)[:, :16]
    added = 0 if block.shortcut is None else block.shortcut(x)
    y = block(x)
    assert torch.equal(y, torch.relu(block.residual(x) + added))
    assert (y == 0).any() and (block.residual(x) + added < 0).any()


# ---- against torchvision ----------------------------------------------------------------------

RESIDUAL_LAYERS = {"0": "conv1", "1": "bn1", "3": "conv2", "4": "bn2", "6": "conv3", "7": "bn3"}
STAGES = {"conv2_x": "layer1", "conv3_x": "layer2", "conv4_x": "layer3", "conv5_x": "layer4"}


def torchvisions_name(ours: str) -> str:
    part, *rest = ours.split(".")
    if part == "conv1":
        return f"{['conv1', 'bn1'][int(rest[0])]}.{rest[1]}"
    if part == "fc":
        return ours
    number, branch, layer, tensor = rest
    inside = f"downsample.{layer}" if branch == "shortcut" else RESIDUAL_LAYERS[layer]
    return f"{STAGES[part]}.{number}.{inside}.{tensor}"


@pytest.mark.parametrize(("depth", "stride_at"), [(18, "1x1"), (50, "3x3")])
def test_with_the_same_weights_the_output_is_torchvisions(depth, stride_at):
    ours = trained(ImageNetResNet(depth, "B", stride_at))
    theirs = torchvision.models.get_model(f"resnet{depth}", weights=None).eval()
    theirs.load_state_dict({torchvisions_name(name): tensor for name, tensor in ours.state_dict().items()})
    x = pictures(2, 96)
    with torch.inference_mode():
        expected = theirs(x)
        torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


def test_with_the_papers_stride_the_output_is_not_torchvisions():
    v1, v1_5 = (trained(ImageNetResNet(50, "B", stride_at)) for stride_at in ("1x1", "3x3"))
    x = pictures(1, 96)
    with torch.inference_mode():
        assert not torch.allclose(v1(x), v1_5(x), rtol=0.1)


# ---- initial weights ----------------------------------------------------------------------------


def test_initial_weights_are_hes():
    model = CifarResNet(110)
    initialise(model, generator(0, "test"))
    for name, layer in model.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            count, expected = layer.weight.numel(), (2 / layer.weight[0].numel()) ** 0.5
            assert layer.weight.std().item() == pytest.approx(expected, rel=4 / (2 * count) ** 0.5), name
            assert abs(layer.weight.mean().item()) < 4.5 * expected / count**0.5, name
    assert (model.fc.bias == 0).all()
    assert all(convolution.bias is None for convolution in model.modules() if isinstance(convolution, nn.Conv2d))


def test_initial_weights_depend_on_the_generator_alone():
    torch.manual_seed(1)
    first, again, other = CifarResNet(20), CifarResNet(20).to(memory_format=torch.contiguous_format), CifarResNet(20)
    state = torch.get_rng_state()
    for model, seed in ((first, 0), (again, 0), (other, 1)):
        initialise(model, generator(seed, "test"))
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    assert not torch.equal(first.fc.weight, other.fc.weight)


# ---- how it runs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["none", "A", "B"])
def test_feature_maps_are_channels_last_and_gradients_reach_every_weight(option):
    model = CifarResNet(8, option)
    initialise(model, generator(0, "test"))
    seen = []
    for block in blocks_of(model):
        block.register_forward_hook(lambda _, inputs, output: seen.append(output))
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(pictures(4, 32))
    logits.float().logsumexp(1).sum().backward()
    assert len(seen) == 3 and all(maps.dtype == torch.bfloat16 for maps in seen)
    assert all(maps.is_contiguous(memory_format=torch.channels_last) for maps in seen)
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_in_bfloat16_the_logits_stay_near():
    model = trained(CifarResNet(20))
    x = pictures(8, 32)
    with torch.inference_mode():
        exact = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model(x).float()
    assert 0 < (rounded - exact).abs().max() < 0.1 * exact.std()


@pytest.mark.parametrize("option", ["none", "A", "B"])
def test_gradients_are_the_derivatives(option):
    """In double precision and against finite differences."""
    model = trained(CifarResNet(8, option)).double()
    x = pictures(1, 8).double().requires_grad_()
    assert torch.autograd.gradcheck(model, (x,), fast_mode=True)


@pytest.mark.slow
@pytest.mark.parametrize("build_model", [lambda: CifarResNet(8), lambda: ImageNetResNet(18, "B")])
def test_the_compiler_takes_the_network_in_one_piece(build_model):
    model = trained(build_model())
    x = pictures(2, 64)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.inference_mode():
        assert torch.equal(compiled(x), model(x))


@pytest.mark.parametrize("side", [96, 160])
def test_a_larger_picture_gets_the_mean_over_all_positions(side):
    """The fully convolutional form: the classifier at every position, and then the mean."""
    model = trained(ImageNetResNet(18, "B", classes=5))
    last = []
    model.conv5_x.register_forward_hook(lambda _, inputs, output: last.append(output))
    with torch.inference_mode():
        logits = model(pictures(1, side))
        everywhere = nn.functional.conv2d(last[0], model.fc.weight[:, :, None, None], model.fc.bias)
    assert everywhere.shape[2:] == (side // 32, side // 32)
    torch.testing.assert_close(logits, everywhere.mean((2, 3)), rtol=1e-4, atol=1e-5)


# ---- what cannot be built ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("cifar", 21, "A"), r"--depth 21: 6n \+ 2 layers, in the paper 20, 32, 44, 56, 110 and 1202"),
        (("cifar", 2, "A"), "--depth 2:"),
        (("cifar", -4, "A"), "--depth -4:"),
        (("cifar", 20, "C"), "--shortcuts C: must be none, A or B in this network"),
        (("imagenet", 20, "B"), "--depth 20: Table 1 has networks of 18, 34, 50, 101 and 152 layers"),
        (("imagenet", 50, "D"), "--shortcuts D: must be none, A, B or C in this network"),
        (("imagenet", 34, "B", "3x3"), "--stride-at 3x3: must be 1x1 in this network"),
        (("imagenet", 50, "B", "5x5"), "--stride-at 5x5: must be 1x1 or 3x3 in this network"),
    ],
)
def test_a_network_that_cannot_be_is_refused_in_one_line(arguments, expected):
    with pytest.raises(UsageError, match=expected) as refused:
        on_meta(*arguments)
    assert "\n" not in str(refused.value)
