"""GoogLeNet against Table 1, and against torchvision's."""

import math

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from common.base.errors import UsageError
from common.training.determinism import generator
from papers.googlenet.model import (
    HEAD_DROPOUT,
    NETWORKS,
    GoogLeNet,
    Inception,
    LocalResponseNorm,
    Pointwise,
    dropout,
    from_torchvision,
    initialise,
    without_heads,
)
from tests.papers.googlenet import torchvisions
from tests.papers.networks import parameters

# Table 1: rows, columns and channels of every output, for a picture of 224 x 224.
OUTPUT_SIZES = {
    "conv1": (112, 112, 64), "pool1": (56, 56, 64), "conv2": (56, 56, 192), "pool2": (28, 28, 192),
    "inception_3a": (28, 28, 256), "inception_3b": (28, 28, 480), "pool3": (14, 14, 480),
    "inception_4a": (14, 14, 512), "inception_4b": (14, 14, 512), "inception_4c": (14, 14, 512),
    "inception_4d": (14, 14, 528), "inception_4e": (14, 14, 832), "pool4": (7, 7, 832),
    "inception_5a": (7, 7, 832), "inception_5b": (7, 7, 1024), "avg_pool": (1, 1, 1024), "linear": (1000,),
}  # fmt: skip
# Table 1: inputs, then #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj.
FILTERS = {
    "3a": (192, 64, 96, 128, 16, 32, 32), "3b": (256, 128, 128, 192, 32, 96, 64),
    "4a": (480, 192, 96, 208, 16, 48, 64), "4b": (512, 160, 112, 224, 24, 64, 64),
    "4c": (512, 128, 128, 256, 24, 64, 64), "4d": (512, 112, 144, 288, 32, 64, 64),
    "4e": (528, 256, 160, 320, 32, 128, 128), "5a": (832, 256, 160, 320, 32, 128, 128),
    "5b": (832, 384, 192, 384, 48, 128, 128),
}  # fmt: skip
SMALL = 96  # pixels; enough for every layer, and quick


def network(name: str = "paper", classes: int = 5, heads: bool = True, side: int = SMALL, seed: int = 0) -> GoogLeNet:
    model = GoogLeNet(classes, name, heads, side)
    initialise(model, generator(seed, "test"))
    return model


def pictures(count: int, side: int = SMALL, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, side, side, generator=generator(seed, "pictures"))


# ---- Table 1 ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_every_output_size_of_table_1(name):
    sizes = {}
    model = GoogLeNet(1000, name).eval()
    for row in OUTPUT_SIZES:
        model.get_submodule(row).register_forward_hook(lambda _, __, output, row=row: sizes.update({row: output.shape}))
    model(pictures(1, 224))
    assert {row: (*shape[2:], shape[1]) for row, shape in sizes.items()} == OUTPUT_SIZES


@pytest.mark.parametrize("row", FILTERS)
def test_every_module_has_the_filters_of_table_1(row):
    module = GoogLeNet(1000, heads=False).get_submodule(f"inception_{row}")
    inputs, one, reduce_3, three, reduce_5, five, projection = FILTERS[row]
    assert {name: tuple(branch[0].weight.shape) for name, branch in module.named_children() if name != "pool"} == {
        "conv_1x1": (one, inputs, 1, 1),
        "reduce_3x3": (reduce_3, inputs, 1, 1), "conv_3x3": (three, reduce_3, 3, 3),
        "reduce_5x5": (reduce_5, inputs, 1, 1), "conv_5x5": (five, reduce_5, 5, 5),
        "pool_proj": (projection, inputs, 1, 1),
    }  # fmt: skip


def test_parameters_of_the_paper_s_network():
    model = GoogLeNet(1000)
    heads = [parameters(head) for head in model.heads.values()]
    assert heads == [3_188_840, 3_190_888]
    assert parameters(model) == 13_378_280 == parameters(GoogLeNet(1000, heads=False)) + sum(heads)
    assert parameters(GoogLeNet(1000, heads=False)) == 6_998_552
    # Of which weights of convolutions and of the classifier, the unit in which Table 1 counts.
    weights = [p for p in GoogLeNet(1000, heads=False).parameters() if p.ndim > 1]
    assert sum(p.numel() for p in weights) == 6_990_272


def test_the_weighted_layers_are_22_deep():
    """Sec. 5: "22 layers deep when counting only layers with parameters"."""
    model = GoogLeNet(1000, heads=False)
    modules = [module for module in model.modules() if isinstance(module, Inception)]
    before = [model.conv1, model.conv2_reduce, model.conv2, model.linear]
    assert len(before) + 2 * len(modules) == 22


def multiply_adds(name: str) -> float:
    model = GoogLeNet(1000, name, heads=False).eval()
    with FlopCounterMode(display=False) as counter:
        model(pictures(1, 224))
    # Sums over channels in local response normalization are no multiply-adds of the network.
    norms = [counts for module, counts in counter.get_flop_counts().items() if "norm" in module]
    return (counter.get_total_flops() - sum(sum(counts.values()) for counts in norms)) / 2


def test_multiply_adds_are_about_the_papers_1_5_billion():
    total = 112**2 * 64 * 3 * 49 + 56**2 * (64 * 64 + 64 * 192 * 9) + 1024 * 1000
    for row, (inputs, one, reduce_3, three, reduce_5, five, projection) in FILTERS.items():
        pixels = OUTPUT_SIZES[f"inception_{row}"][0] ** 2
        first = inputs * (one + reduce_3 + reduce_5 + projection)
        total += pixels * (first + reduce_3 * three * 9 + reduce_5 * five * 25)
    assert multiply_adds("paper") == total == pytest.approx(1.5e9, rel=0.06)


def test_multiply_adds_of_torchvisions_are_those_it_states():
    stated = torchvision.models.GoogLeNet_Weights.IMAGENET1K_V1.meta["_ops"]
    assert multiply_adds("torchvision") / 1e9 == pytest.approx(stated, abs=0.0005)


def test_rectified_linear_units_follow_every_convolution():
    """Sec. 5: "including those inside the Inception modules"."""
    model = network().eval()
    outputs = []
    for module in model.modules():
        for first, second in zip(list(module.children()), list(module.children())[1:], strict=False):
            if isinstance(first, nn.Conv2d):
                second.register_forward_hook(lambda _, __, output: outputs.append(output.min().item()))
    model(pictures(1))
    assert len(outputs) == 57 and min(outputs) == 0.0


def test_branches_are_concatenated_in_the_order_of_the_columns():
    module = network(heads=False).inception_3a
    x = torch.rand(1, 192, 8, 8, generator=generator(0, "map"))
    parts = module(x).split((64, 128, 32, 32), dim=1)
    torch.testing.assert_close(parts[0], module.conv_1x1(x))
    torch.testing.assert_close(parts[1], module.conv_3x3(module.reduce_3x3(x)))
    torch.testing.assert_close(parts[2], module.conv_5x5(module.reduce_5x5(x)))
    torch.testing.assert_close(parts[3], module.pool_proj(F.max_pool2d(x, 3, 1, 1)))


def test_a_5x5_branch_sees_five_pixels_each_way():
    """Not three, as in torchvision's."""
    seen = {}
    for name in ("paper", "torchvision"):
        branch = network(name, heads=False).eval().inception_3a.conv_5x5
        x = torch.zeros(1, 16, 9, 9, requires_grad=True)
        branch[0](x)[0, 0, 4, 4].backward()
        seen[name] = int((x.grad[0].abs().sum(0) > 0).sum())
    assert seen == {"paper": 25, "torchvision": 9}


# ---- auxiliary classifiers -----------------------------------------------------------------


@pytest.mark.parametrize("where", ["4a", "4d"])
def test_layers_of_a_head(where):
    """Sec. 5: 4x4 after the average pooling, 128 filters, 1,024 units."""
    head = GoogLeNet(1000).heads[where]
    channels = {"4a": 512, "4d": 528}[where]
    x = torch.rand(2, channels, 14, 14, generator=generator(0, "map"))
    assert head.pool(x).shape == (2, channels, 4, 4)
    torch.testing.assert_close(head.pool(x), F.avg_pool2d(x, 5, 3))
    assert head.conv(head.pool(x)).shape == (2, 128, 4, 4)
    assert (head.dense.in_features, head.dense.out_features, head.linear.out_features) == (2048, 1024, 1000)
    assert head.eval()(x).shape == (2, 1000)


def test_the_heads_look_at_4a_and_4d():
    model, draw = network(), generator(0, "dropout")
    model.train()
    maps = {}
    for name in ("4a", "4d"):
        inception = model.get_submodule(f"inception_{name}")
        inception.register_forward_hook(lambda _, __, output, name=name: maps.update({name: output}))
    _, of_4a, of_4d = model(pictures(2), draw)
    again = generator(0, "dropout")
    dropout(torch.zeros(2, 1024), 0.4, again)  # the classifier draws first
    torch.testing.assert_close(of_4a, model.heads["4a"](maps["4a"], again))
    torch.testing.assert_close(of_4d, model.heads["4d"](maps["4d"], again))


def test_the_heads_are_dropped_at_test_time():
    trained, bare = network().eval(), GoogLeNet(5, heads=False, side=SMALL).eval()
    bare.load_state_dict(without_heads(trained.state_dict()))
    x = pictures(2)
    with FlopCounterMode(display=False) as counter:
        logits = trained(x)
    assert isinstance(logits, Tensor) and torch.equal(logits, bare(x))
    assert not any("heads" in module for module in counter.get_flop_counts())
    for parameter in trained.heads.parameters():
        parameter.data.fill_(math.nan)
    assert torch.equal(trained(x), logits)


def test_without_heads_training_gives_one_answer():
    model = network(heads=False).train()
    assert [tuple(logits.shape) for logits in model(pictures(2), generator(0, "dropout"))] == [(2, 5)]
    assert parameters(network()) > parameters(model)


@pytest.mark.parametrize("side", [80, 96, 112, 128, 176, 224, 511, 512])
def test_heads_fit_the_pictures_that_train(side):
    model = network(side=side).train()
    assert [tuple(logits.shape) for logits in model(pictures(1, side), generator(0, "dropout"))] == [(1, 5)] * 3


@pytest.mark.parametrize("side", [80, 96, 112, 128, 224])
def test_a_head_sees_its_whole_map_whatever_the_side(side):
    head = network(side=side).heads["4a"]
    seen = torch.ones(1, 512, side // 16, side // 16, requires_grad=True)
    head.pool(seen).sum().backward()
    assert (seen.grad > 0).all()


@pytest.mark.parametrize("side", [79, 513])
def test_a_side_that_does_not_fit_is_refused(side):
    with pytest.raises(UsageError, match=f"--side {side}: from 80 to 512"):
        GoogLeNet(5, side=side)


def test_the_loss_of_the_heads_reaches_the_early_layers_only():
    model = network().train()
    _, of_4a, _ = model(pictures(2), generator(0, "dropout"))
    of_4a.sum().backward()
    assert model.conv1[0].weight.grad.abs().sum() > 0
    assert model.inception_4b.conv_1x1[0].weight.grad is None and model.linear.weight.grad is None


# ---- dropout -------------------------------------------------------------------------------


def test_dropout_is_off_at_test_time_and_on_in_training():
    model, x = network(), pictures(2)
    model.eval()
    assert torch.equal(model(x), model(x))
    model.train()
    first, same, other = (model(x, generator(0, "dropout", index=index)) for index in (0, 0, 1))
    for one, two, three in zip(first, same, other, strict=True):
        assert torch.equal(one, two) and not torch.equal(one, three)
    with pytest.raises(ValueError, match="needs a generator"):
        model(x)


def test_dropout_leaves_the_global_state_alone():
    model, x = network().train(), pictures(2)
    before = torch.get_rng_state()
    model(x, generator(0, "dropout"))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("share", [0.4, HEAD_DROPOUT])
def test_dropout_zeroes_its_share_and_keeps_the_mean(share):
    y = dropout(torch.ones(400, 500), share, generator(0, "dropout"))
    assert abs((y == 0).float().mean() - share) < 0.005
    assert y.unique().tolist() == pytest.approx([0.0, 1 / (1 - share)])
    assert abs(y.mean() - 1) < 0.02


def test_shares_of_dropout_are_the_papers():
    assert NETWORKS["paper"].dropout == 0.4 and HEAD_DROPOUT == 0.7


# ---- local response normalization -------------------------------------------------------------


@pytest.mark.parametrize("channels", [3, 64, 192])
def test_local_response_norm_is_torchs(channels):
    x = 100 * torch.randn(2, channels, 5, 7, generator=generator(0, "map"), dtype=torch.float64)
    expected = F.local_response_norm(x, size=5, alpha=1e-4, beta=0.75, k=1.0)
    assert (expected / x).min() < 0.7  # values at which it does something
    torch.testing.assert_close(LocalResponseNorm()(x), expected)


def test_the_gradient_of_local_response_norm():
    x = 100 * torch.randn(1, 8, 2, 2, generator=generator(0, "map"), dtype=torch.float64)
    assert torch.autograd.gradcheck(LocalResponseNorm(), x.requires_grad_(), eps=1e-3, rtol=1e-5)


def test_local_response_norm_follows_pool1_and_conv2():
    """Fig. 3."""
    model, seen = network(heads=False).eval(), {}
    for name in ("pool1", "conv2"):
        model.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
    for name in ("conv2_reduce", "pool2"):
        model.get_submodule(name).register_forward_pre_hook(lambda _, x, name=name: seen.update({name: x[0]}))
    model(100 * pictures(1))
    for before, after in (("pool1", "conv2_reduce"), ("conv2", "pool2")):
        assert not torch.allclose(seen[before], seen[after])
        torch.testing.assert_close(seen[after], F.local_response_norm(seen[before], 5))


# ---- initial weights ---------------------------------------------------------------------------


@pytest.mark.parametrize(("initial", "gain", "bias"), [("xavier", 1, 0.2), ("he", 2, 0)])
def test_initial_weights_are_caffes_xavier_or_hes(initial, gain, bias):
    model = network()
    initialise(model, generator(0, "test"), initial)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            assert (parameter == bias).all(), name
            continue
        bound = (3 * gain / parameter[0].numel()) ** 0.5
        assert parameter.abs().max() <= bound, name
        assert parameter.std().item() == pytest.approx(bound / 3**0.5, rel=0.1), name


def test_initial_weights_do_not_depend_on_the_memory_format():
    """They are drawn in the order of their shapes, one layer after the other."""
    model, draw = network(), generator(0, "test")
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            bound = (6 / parameter[0].numel()) ** 0.5
            assert torch.equal(parameter, torch.empty(parameter.shape).uniform_(-bound, bound, generator=draw)), name


def test_seven_networks_may_begin_alike_or_differently():
    one, same, other = (network(seed=seed).linear.weight for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.mark.parametrize("bias", [True, False])
def test_a_1x1_convolution_that_trains_in_bfloat16_is_still_one(bias):
    """The product of matrices and the convolution, and the gradients of both; bfloat16 has 8 bits."""
    layer = Pointwise(24, 16, 1, bias=bias).to(memory_format=torch.channels_last)
    x = torch.randn(2, 24, 5, 7, generator=generator(0, "x")).to(memory_format=torch.channels_last)

    def gone_through(precision: torch.dtype) -> list[Tensor]:
        layer.zero_grad()
        seen = x.clone().requires_grad_()
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            y = layer(seen)
        (y.float() ** 2).sum().backward()
        assert y.dtype == precision and y.is_contiguous(memory_format=torch.channels_last)
        return [y.float().detach(), seen.grad, *(parameter.grad for parameter in layer.parameters())]

    assert len(gone_through(torch.float32)) == 3 + bias
    for found, expected in zip(gone_through(torch.bfloat16), gone_through(torch.float32), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0.02 * expected.abs().max().item())


# ---- other networks -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bn", "torchvision"])
def test_batch_norm_takes_the_place_of_biases_and_response_norms(name):
    model = GoogLeNet(1000, name)
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == len(convolutions) == 59 and all(layer.bias is None for layer in convolutions)
    assert not any(isinstance(module, LocalResponseNorm) for module in model.modules())
    assert sum(isinstance(module, LocalResponseNorm) for module in GoogLeNet(1000).modules()) == 2


def test_the_bn_network_has_the_papers_kernels():
    weights = [p.shape for p in GoogLeNet(1000).parameters() if p.ndim > 1]
    assert [p.shape for p in GoogLeNet(1000, "bn").parameters() if p.ndim > 1] == weights


def test_output_equals_torchvisions_with_the_same_weights():
    theirs, ours = torchvisions(), GoogLeNet(1000, "torchvision").eval()
    ours.load_state_dict(from_torchvision(theirs.state_dict()), strict=True)
    x = pictures(2, 224)
    with torch.no_grad():
        expected = theirs(x)
        assert expected.std() > 0.1
        torch.testing.assert_close(ours(x), expected, rtol=0, atol=1e-5)
        for where, their_head in (("4a", theirs.aux1), ("4d", theirs.aux2)):
            seen = torch.rand(2, {"4a": 512, "4d": 528}[where], 14, 14, generator=generator(0, where))
            torch.testing.assert_close(ours.heads[where](seen), their_head(seen), rtol=0, atol=1e-5)


def test_parameters_of_torchvisions_network():
    assert parameters(GoogLeNet(1000, "torchvision")) == 13_004_888
    assert parameters(GoogLeNet(1000, "torchvision", heads=False)) == 6_624_904
