"""The networks of the SENet paper against its tables and formulas, and against the networks without blocks."""

from functools import partial

import pytest
import torch
import torchvision
from torch import nn

from common.base.errors import UsageError
from common.training.determinism import generator
from papers.resnet import model as resnet
from papers.senet.model import (
    NETWORKS,
    CifarPreActivationResNet,
    CifarResNet,
    ImageNetResNet,
    PreActivationUnit,
    ResidualBlock,
    SqueezeExcitation,
    ZeroPadding,
    initialise,
)
from tests.papers import networks
from tests.papers.networks import multiply_adds, parameters, pictures

# Parameters: plain, with blocks, with blocks whose fully connected layers have biases.
COUNTS = {
    ("imagenet", 50): (25_557_032, 28_071_976, 28_088_024),
    ("imagenet", 101): (44_549_160, 49_292_328, 49_326_872),
    ("imagenet", 152): (60_192_808, 66_770_984, 66_821_848),
    ("imagenet-resnext", 50): (25_028_904, 27_543_848, 27_559_896),
}
TABLE_2 = {  # billion multiply-adds: plain, with blocks
    ("imagenet", 50): (3.86, 3.87),
    ("imagenet", 101): (7.58, 7.60),
    ("imagenet", 152): (11.30, 11.32),
    ("imagenet-resnext", 50): (4.24, 4.25),
    ("imagenet-resnext", 101): (7.99, 8.00),
}
TABLE_10 = {2: 45.7, 4: 35.7, 8: 30.7, 16: 28.1, 32: 26.9}  # r: million parameters of SE-ResNet-50
SMALLEST = [("cifar", 8), ("cifar-preactivation", 8), ("cifar-preactivation-bottleneck", 11)]


trained = partial(networks.trained, initialise=initialise)


def build(name: str, *arguments, **named) -> nn.Module:
    return NETWORKS[name](*arguments, **named)


def on_meta(*arguments, **named) -> nn.Module:
    """A network without numbers in it, for counts and shapes."""
    with torch.device("meta"):
        return build(*arguments, **named)


def all_of(kind: type, model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, kind)]


# ---- sizes against the paper's tables -----------------------------------------------------


@pytest.mark.parametrize("network", COUNTS)
def test_imagenet_networks_have_the_parameters_that_follow_from_table_1(network):
    plain, without_biases, with_biases = COUNTS[network]
    assert parameters(on_meta(*network, reduction=None)) == plain
    assert parameters(on_meta(*network)) == without_biases
    assert parameters(on_meta(*network, bias=True)) == with_biases


def test_se_resnet_50_has_two_and_a_half_million_parameters_more():
    """Sec. 4: about 2.5 million on 25 million, by Eqn. 5: twice the squared maps of every block, over r."""
    plain, with_blocks, _ = COUNTS["imagenet", 50]
    stages = {256: 3, 512: 4, 1024: 6, 2048: 3}
    assert with_blocks - plain == 2 * sum(blocks * maps**2 for maps, blocks in stages.items()) // 16 == 2_514_944


@pytest.mark.parametrize("reduction", TABLE_10)
def test_reductions_have_the_parameters_of_table_10(reduction):
    assert parameters(on_meta("imagenet", 50, reduction)) / 1e6 == pytest.approx(TABLE_10[reduction], rel=0.005)


def test_cifar_networks_have_the_parameters_that_follow_from_their_papers():
    assert parameters(on_meta("cifar", 20, None)) == 269_722
    assert parameters(on_meta("cifar", 20)) == 271_738
    # Both are printed as 1.7 million in the paper's [14].
    assert parameters(on_meta("cifar-preactivation", 110, reduction=None)) == 1_730_522
    assert parameters(on_meta("cifar-preactivation-bottleneck", 164, reduction=None)) == 1_703_258


@pytest.mark.parametrize("network", TABLE_2)
def test_multiply_adds_are_those_of_table_2(network):
    """To 0.5 %, for the paper counts the pooling and the gating too. With the stride in the other
    convolution they would be off by 3 % and more."""
    for reduction, printed in zip((None, 16), TABLE_2[network], strict=True):
        assert multiply_adds(on_meta(*network, reduction)) == pytest.approx(printed, rel=0.005)


@pytest.mark.parametrize(
    ("network", "layers"),
    [(("cifar", 20), 20), (("cifar-preactivation", 110), 110), (("cifar-preactivation-bottleneck", 164), 164)]
    + [(network, network[1]) for network in TABLE_2],
)
def test_the_depth_is_the_number_of_weighted_layers(network, layers):
    aside = (".shortcut", ".excitation.")
    counted = [
        name
        for name, module in on_meta(*network).named_modules()
        if isinstance(module, (nn.Conv2d, nn.Linear)) and not any(part in name for part in aside)
    ]
    assert len(counted) == layers


def shapes(model: nn.Module, side: int) -> dict[str, tuple[int, ...]]:
    """What each part of the network gives for one picture: channels, height, width."""
    seen = {}
    for name, part in model.named_children():
        part.register_forward_hook(lambda _, inputs, output, name=name: seen.update({name: tuple(output.shape[1:])}))
    model(torch.empty(1, 3, side, side, device="meta"))
    return seen


@pytest.mark.parametrize("network", TABLE_2)
def test_the_maps_for_imagenet_have_the_sizes_of_table_1(network):
    assert shapes(on_meta(*network), 224) == {
        "conv1": (64, 112, 112), "pool": (64, 56, 56), "conv2_x": (256, 56, 56), "conv3_x": (512, 28, 28),
        "conv4_x": (1024, 14, 14), "conv5_x": (2048, 7, 7), "fc": (1000,),
    }  # fmt: skip


@pytest.mark.parametrize(("network", "times"), [("cifar-preactivation", 1), ("cifar-preactivation-bottleneck", 4)])
def test_the_maps_for_cifar_halve_twice(network, times):
    last = (64 * times, 8, 8)
    assert shapes(on_meta(network, 110), 32) == {
        "conv1": (16, 32, 32), "maps32": (16 * times, 32, 32), "maps16": (32 * times, 16, 16), "maps8": last,
        "activation": last, "fc": (10,),
    }  # fmt: skip


def test_the_fully_connected_layers_have_the_sizes_of_table_1():
    """fc, [16, 256] in the first stage to fc, [128, 2048] in the last."""
    model = on_meta("imagenet", 50)
    stages = (model.conv2_x, model.conv3_x, model.conv4_x, model.conv5_x)
    sizes = [{(len(block.w1.weight), len(block.w2.weight)) for block in all_of(SqueezeExcitation, s)} for s in stages]
    assert sizes == [{(16, 256)}, {(32, 512)}, {(64, 1024)}, {(128, 2048)}]


# ---- the block ------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [False, True])
def test_the_block_computes_equations_2_to_4(bias):
    block = SqueezeExcitation(8, 4, bias)
    initialise(block, generator(0, "test"))
    u = torch.randn(2, 8, 5, 3, generator=generator(0, "maps"))
    x = block(u)
    for n in range(2):
        z = [u[n, c].sum().item() / (5 * 3) for c in range(8)]
        hidden = [max(0.0, sum(w * v for w, v in zip(row, z, strict=True))) for row in block.w1.weight.tolist()]
        for c in range(8):
            logit = sum(w * v for w, v in zip(block.w2.weight[c].tolist(), hidden, strict=True))
            torch.testing.assert_close(x[n, c], u[n, c] / (1 + torch.tensor(-logit).exp()))


def test_the_block_stands_before_the_addition():
    """Fig. 3: the gate scales the branch and not the shortcut; then the addition, then the ReLU."""
    block = trained(CifarResNet(8)).maps16[0]
    x = torch.randn(2, 16, 8, 8, generator=generator(0, "maps"))
    u = block.residual(x)
    gate = block.excitation.gate(u)
    assert torch.equal(block(x), torch.relu(u * gate[:, :, None, None] + block.shortcut(x)))
    unit = trained(CifarPreActivationResNet(8, bottleneck=False)).maps32[0]
    u = unit.residual(unit.activation(x))
    assert torch.equal(unit(x), unit.excitation(u) + unit.activation(x))


@pytest.mark.parametrize("network", [*SMALLEST, ("imagenet", 50), ("imagenet-resnext", 50)])
def test_every_branch_has_a_block_and_the_plain_network_none(network):
    with_blocks, plain = on_meta(*network), on_meta(*network, reduction=None)
    branches = len(all_of(ResidualBlock, with_blocks)) + len(all_of(PreActivationUnit, with_blocks))
    assert len(all_of(SqueezeExcitation, with_blocks)) == branches > 0
    assert all_of(SqueezeExcitation, plain) == []


@pytest.mark.parametrize(
    "network",
    [*SMALLEST, *(pytest.param((family, 50), marks=pytest.mark.slow) for family in ("imagenet", "imagenet-resnext"))],
)
def test_a_gate_forced_to_1_gives_the_plain_network_exactly(network):
    gated, plain = trained(build(*network, bias=True)), build(*network, reduction=None).eval()
    names = plain.state_dict().keys()
    plain.load_state_dict({name: tensor for name, tensor in gated.state_dict().items() if name in names})
    x = pictures(2, 32)
    with torch.inference_mode():
        expected = plain(x)
        assert not torch.equal(gated(x), expected)
        for block in all_of(SqueezeExcitation, gated):
            block.w2.weight.zero_()
            block.w2.bias.fill_(100)  # the sigmoid of which is 1
        assert torch.equal(gated(x), expected)


# ---- the networks without blocks ------------------------------------------------------------


def test_the_plain_network_is_that_of_the_resnet_paper_bit_for_bit():
    here, there = CifarResNet(20, reduction=None), resnet.CifarResNet(20, "A")
    initialise(here, generator(0, "test"))
    resnet.initialise(there, generator(0, "test"))
    for name, tensor in here.state_dict().items():
        assert torch.equal(tensor, there.state_dict()[name]), name
    logits, gradients = zip(*(logits_and_gradients(model) for model in (here, there)), strict=True)
    assert torch.equal(*logits)
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


def logits_and_gradients(model: nn.Module) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """In training mode."""
    logits = model(pictures(4, 32))
    logits.logsumexp(1).sum().backward()
    return logits, [parameter.grad for parameter in model.parameters()]


def test_the_plain_imagenet_network_is_the_resnet_papers_bit_for_bit():
    here, there = trained(ImageNetResNet(50, reduction=None)), resnet.ImageNetResNet(50, "B", "1x1").eval()
    there.load_state_dict(here.state_dict())
    with torch.inference_mode():
        assert torch.equal(here(pictures(1, 64)), there(pictures(1, 64)))


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


def test_with_equal_weights_the_plain_resnext_gives_torchvisions_output():
    ours = trained(build("imagenet-resnext", 50, reduction=None))
    theirs = torchvision.models.resnext50_32x4d(weights=None).eval()
    theirs.load_state_dict({torchvisions_name(name): tensor for name, tensor in ours.state_dict().items()})
    x = pictures(2, 64)
    with torch.inference_mode():
        expected = theirs(x)
        torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


def test_the_parameterless_shortcut_subsamples_and_pads_with_zeros():
    x = pictures(1, 6)
    y = ZeroPadding(new_maps=3, stride=2)(x)
    for row in range(3):
        for column in range(3):
            assert torch.equal(y[:, :3, row, column], x[:, :, 2 * row, 2 * column])
    assert y.shape == (1, 6, 3, 3) and (y[:, 3:] == 0).all()


@pytest.mark.parametrize("network", SMALLEST[1:])
def test_preactivation_paths_split_behind_the_activation_where_they_must(network):
    """[14]: in the network's first unit, and where the maps change in number. Elsewhere the shortcut is x itself."""
    model = trained(build(*network, reduction=None, classes=3))
    for block in (model.maps32[0], model.maps16[0], model.maps8[0]):
        x = pictures(1, 8).repeat(1, 128, 1, 1)[:, : block.activation[0].num_features]
        activated = torch.relu(block.activation[0](x))
        torch.testing.assert_close(block(x), block.residual(activated) + block.shortcut(activated))
    deeper = trained(build(network[0], 20, reduction=None)).maps32[1]
    x = pictures(1, 8).repeat(1, 32, 1, 1)[:, : deeper.activation[0].num_features]
    assert torch.equal(deeper(x), deeper.residual(deeper.activation(x)) + x)


# ---- initial weights ----------------------------------------------------------------------------


@pytest.mark.parametrize("network", SMALLEST)
def test_with_and_without_blocks_a_seed_starts_from_the_same_weights(network):
    with_blocks, plain = build(*network), build(*network, reduction=None)
    for model in (with_blocks, plain):
        initialise(model, generator(0, "test"))
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, with_blocks.state_dict()[name]), name


def test_initial_weights_are_hes():
    model = build("imagenet", 50)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    initialise(model, generator(0, "test"))
    assert torch.equal(torch.get_rng_state(), state)
    for name, layer in model.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            count, expected = layer.weight.numel(), (2 / layer.weight[0].numel()) ** 0.5
            assert layer.weight.std().item() == pytest.approx(expected, rel=4 / (2 * count) ** 0.5), name
    assert (model.fc.bias == 0).all()


# ---- how it runs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("network", SMALLEST)
def test_feature_maps_are_channels_last_and_gradients_reach_every_weight(network):
    model = build(*network, reduction=4)
    initialise(model, generator(0, "test"))
    seen = []
    for stage in (model.maps32, model.maps16, model.maps8):
        stage.register_forward_hook(lambda _, inputs, output: seen.append(output))
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(pictures(4, 32))
    logits.float().logsumexp(1).sum().backward()
    assert len(seen) == 3 and all(maps.dtype == torch.bfloat16 for maps in seen)
    assert all(maps.is_contiguous(memory_format=torch.channels_last) for maps in seen)
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("network", SMALLEST)
def test_gradients_are_the_derivatives(network):
    """In double precision and against finite differences."""
    model = trained(build(*network, reduction=4)).double()
    x = pictures(1, 8).double().requires_grad_()
    assert torch.autograd.gradcheck(model, (x,), fast_mode=True)


@pytest.mark.slow
@pytest.mark.parametrize("network", SMALLEST)
def test_the_compiler_takes_the_network_in_one_piece(network):
    model = trained(build(*network))
    x = pictures(2, 32)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.inference_mode():
        assert torch.equal(compiled(x), model(x))


# ---- what cannot be built ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("cifar", 21), r"--depth 21: 6n \+ 2 layers with blocks of two layers"),
        (("cifar", 2), "--depth 2:"),
        (("cifar-preactivation", 111), r"--depth 111: 6n \+ 2 layers"),
        (("cifar-preactivation-bottleneck", 165), r"--depth 165: 9n \+ 2 layers with bottlenecks"),
        (("cifar-preactivation-bottleneck", 14), "--depth 14:"),
        (("imagenet", 34), "--depth 34: the paper has networks of 50, 101 and 152 layers"),
        (("imagenet-resnext", 152), "--depth 152: the paper has networks of 50 and 101 layers"),
        (("cifar", 20, 32), "--reduction 32: must divide 16, the feature maps"),
        (("cifar", 20, 3), "--reduction 3: must divide 16"),
        (("imagenet", 50, 0), "--reduction 0: must divide 256"),
    ],
)
def test_a_network_that_cannot_be_is_refused_in_one_line(arguments, expected):
    with pytest.raises(UsageError, match=expected) as refused:
        build(*arguments)
    assert "\n" not in str(refused.value)


def test_a_resnext_has_32_groups_or_is_none():
    with pytest.raises(UsageError, match="--cardinality 8: 1 for ResNet, 32 for ResNeXt"):
        ImageNetResNet(50, cardinality=8)
