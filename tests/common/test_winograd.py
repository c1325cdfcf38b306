"""Winograd's convolutions are convolutions: values, gradients, bits, and what is left to PyTorch."""

import copy
import ctypes
import os
import shlex
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.base import paths
from common.training import compile_c, winograd
from common.training.determinism import generator
from common.training.winograd import WinogradConv2d, convolve, use_winograd

needs_compiler = pytest.mark.skipif(winograd._compiled() is None, reason="no C compiler here")

# Pictures, height, width, inputs, outputs: tiles of four that fit, that stick out, one pixel; more than a block of
# them, more parts than there are tiles; each of the pieces that products are made of.
SHAPES = [
    (2, 8, 8, 16, 16), (1, 1, 1, 16, 16), (1, 5, 3, 16, 32), (3, 7, 10, 32, 16), (2, 40, 40, 64, 64),
    (1, 13, 9, 48, 112), (1, 4, 60, 96, 80), (1, 6, 6, 160, 160), (0, 8, 8, 16, 16),
]  # fmt: skip
ORDERS = [torch.channels_last, torch.contiguous_format]
# In units of a map's standard deviation. A single product left out or put in the wrong place is a thousand times that.
CLOSE = 2e-4


def drawn(shape: tuple[int, ...], order=torch.channels_last) -> tuple[Tensor, Tensor, Tensor]:
    pictures, height, width, inputs, outputs = shape
    draw = generator(0, "winograd")
    x = torch.randn(pictures, inputs, height, width, generator=draw).contiguous(memory_format=order)
    weight = torch.randn(outputs, inputs, 3, 3, generator=draw).contiguous(memory_format=order) / (9 * inputs) ** 0.5
    return x, weight, torch.randn(outputs, generator=draw)


def with_gradients(convolution, *inputs: Tensor | None) -> list[Tensor]:
    """The output, and the gradients of what it was made of, where its own is another random map."""
    leaves = [None if one is None else one.detach().clone().requires_grad_() for one in inputs]
    y = convolution(*leaves)
    dy = torch.randn(y.shape, generator=generator(0, "gradient")).to(y.dtype)
    return [y.detach(), *torch.autograd.grad(y, [leaf for leaf in leaves if leaf is not None], dy)]


def direct(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.conv2d(x, weight, bias, padding=1)


@needs_compiler
@pytest.mark.parametrize("order", ORDERS, ids=["channels-last", "channels-first"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_values_and_gradients_are_those_of_a_convolution(shape, order):
    for bias in (True, False):
        x, weight, b = drawn(shape, order)
        inputs = (x, weight, b if bias else None)
        found = with_gradients(convolve, *inputs)
        expected = with_gradients(direct, *(None if one is None else one.double() for one in inputs))
        for ours, exact in zip(found, expected, strict=True):
            assert ours.dtype == torch.float32
            scale = exact.std().item() if exact.numel() > 1 else 1.0
            torch.testing.assert_close(ours.double(), exact, rtol=0, atol=CLOSE * scale)


@needs_compiler
def test_a_kernel_of_one_gives_its_input_back():
    """What no random number shows: nothing is turned or moved, up to the last column of a tile that sticks out."""
    x = torch.arange(16 * 6 * 7, dtype=torch.float32).reshape(1, 16, 6, 7) / 64
    for row, column in ((0, 0), (0, 2), (1, 1), (2, 1)):
        weight = torch.zeros(16, 16, 3, 3)
        weight[range(16), range(16), row, column] = 1
        moved = F.pad(x, (1, 1, 1, 1))[:, :, row : row + 6, column : column + 7]
        torch.testing.assert_close(convolve(x, weight, None), moved, rtol=0, atol=1e-4)


@needs_compiler
def test_bits_do_not_depend_on_the_number_of_threads():
    inputs = drawn((5, 18, 21, 32, 48))
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            results.append(with_gradients(convolve, *inputs))
    finally:
        torch.set_num_threads(threads)
    for others in results[1:]:
        assert all(torch.equal(one, other) for one, other in zip(results[0], others, strict=True))


@needs_compiler
def test_what_lies_in_memory_before_does_not_matter():
    """Scratch memory is not cleared by the system: values of earlier calls must not leak into a block not full."""
    inputs = drawn((1, 5, 5, 16, 16))
    before = with_gradients(convolve, *inputs)
    with_gradients(convolve, *(torch.full_like(one, torch.nan) for one in drawn((2, 20, 20, 16, 16))))
    assert all(map(torch.equal, before, with_gradients(convolve, *inputs)))


class Network(nn.Module):
    """Convolutions of which two suit; one of them comes twice, under two names."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        twice = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.body = nn.Sequential(nn.ReLU(), twice, nn.ReLU(), twice)
        self.last = nn.Conv2d(16, 32, 3, padding=1).eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(self.first(x)))


OTHERS = {
    "stride": nn.Conv2d(16, 16, 3, stride=2, padding=1), "padding": nn.Conv2d(16, 16, 3, padding=2),
    "5x5": nn.Conv2d(16, 16, 5, padding=1), "1x1": nn.Conv2d(16, 16, 1, padding=1),
    "groups": nn.Conv2d(32, 32, 3, padding=1, groups=2), "dilation": nn.Conv2d(16, 16, 3, padding=1, dilation=2),
    "reflected": nn.Conv2d(16, 16, 3, padding=1, padding_mode="reflect"), "inputs": nn.Conv2d(8, 16, 3, padding=1),
    "outputs": nn.Conv2d(16, 24, 3, padding=1), "wide": nn.Conv2d(192, 208, 3, padding=1),
    "padding by name": nn.Conv2d(16, 16, 3, padding="same"),
    "elsewhere": nn.Conv2d(16, 16, 3, padding=1, device="meta"),
}  # fmt: skip


@needs_compiler
def test_what_does_not_suit_stays():
    model = nn.ModuleDict(OTHERS)
    before = dict(model.items())
    assert use_winograd(model) is None
    assert dict(model.items()) == before
    assert use_winograd(nn.Sequential(nn.Conv2d(192, 192, 3, padding=1)))  # the widest that does


@needs_compiler
def test_a_model_keeps_its_parameters_and_their_names():
    model = Network()
    names, parameters = list(model.state_dict()), list(model.parameters())
    x = torch.randn(2, 3, 12, 12, generator=generator(0, "x"))
    expected = model(x)
    assert "winograd.c by " in use_winograd(model)
    assert [type(part) is WinogradConv2d for part in (model.first, model.body[1], model.last)] == [False, True, True]
    assert model.body[1] is model.body[3] and model.body[1].training and not model.last.training
    assert list(model.state_dict()) == names
    assert all(one is other for one, other in zip(model.parameters(), parameters, strict=True))
    torch.testing.assert_close(model(x), expected, rtol=0, atol=CLOSE)
    assert not torch.equal(model(x), expected)  # it was computed otherwise
    assert torch.equal(copy.deepcopy(model)(x), model(x))
    with torch.inference_mode():
        assert torch.equal(model(x), copy.deepcopy(model)(x))


@needs_compiler
@pytest.mark.parametrize("height", [3, 4, 9, 19])
def test_without_padding_the_rim_is_not_there(height):
    plain = nn.Conv2d(32, 16, 3)
    fast = nn.Sequential(copy.deepcopy(plain))
    assert use_winograd(fast)
    x = torch.randn(2, 32, height, 7, generator=generator(0, "x"))
    exact = with_gradients(plain.double(), x.double())
    for ours, direct_way in zip(with_gradients(fast, x), exact, strict=True):
        torch.testing.assert_close(ours.double(), direct_way, rtol=0, atol=CLOSE * direct_way.std().item())


@needs_compiler
def test_maps_that_are_too_small_are_left_to_pytorch():
    fast = nn.Sequential(nn.Conv2d(16, 16, 3))
    assert use_winograd(fast)
    with pytest.raises(RuntimeError, match="[Kk]ernel size"):
        fast(torch.zeros(1, 16, 2, 8))


@needs_compiler
def test_other_precisions_are_left_to_pytorch():
    assert use_winograd(Network(), torch.bfloat16) is None
    plain, fast = Network(), Network()
    fast.load_state_dict(plain.state_dict())
    use_winograd(fast)
    x = torch.randn(2, 3, 12, 12, generator=generator(0, "x"))
    maps = torch.randn(2, 16, 12, 12, generator=generator(0, "maps"))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(plain(x), fast(x)) and torch.equal(plain.last(maps), fast.last(maps))
    assert torch.equal(plain.last(maps[0]), fast.last(maps[0]))  # a single picture, without a batch
    elsewhere = copy.deepcopy(fast).to("meta")
    assert elsewhere(x.to("meta")).shape == (2, 32, 12, 12)
    assert torch.equal(plain.double()(x.double()), fast.double()(x.double()))


def test_without_a_compiler_nothing_changes(monkeypatch):
    monkeypatch.setattr(winograd, "compile_c", lambda *_, **__: None)
    model = Network()
    assert use_winograd(model) is None and not any(isinstance(part, WinogradConv2d) for part in model.modules())
    with pytest.raises(RuntimeError, match="is not compiled"):
        convolve(*drawn((1, 4, 4, 16, 16)))


@needs_compiler
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[1], SHAPES[-1]], ids=lambda shape: "x".join(map(str, shape)))
def test_pytorch_finds_nothing_wrong_with_the_operator(shape, bias):
    """What it says of its results' strides before it computes them, which torch.compile relies on; and aliases."""
    x, weight, b = (one.requires_grad_() for one in drawn(shape))
    torch.library.opcheck(convolve, (x, weight, b if bias else None))


@needs_compiler
def test_a_gradient_that_nobody_wants_is_not_computed(monkeypatch):
    seen, honest = [], winograd._convolution
    monkeypatch.setattr(winograd, "_convolution", lambda *maps, **how: seen.append(how) or honest(*maps, **how))
    for wanted in (False, True):
        x, weight, _ = drawn((1, 4, 4, 16, 16))
        convolve(x.requires_grad_(wanted), weight.requires_grad_(), None).sum().backward()
    assert seen == [{}, {}, {"turned": True}]


@needs_compiler
def test_what_is_not_finite_is_passed_on():
    """To the outputs of its tile, and no others."""
    x, weight, _ = drawn((1, 12, 4, 16, 16))
    x[0, 3, 5, 1] = torch.inf
    rows = convolve(x, weight, None).isfinite().all(1).all(2)[0]
    assert rows.tolist() == [True] * 4 + [False] * 4 + [True] * 4


WRONG = {
    "channels": (lambda x, w, b: (x[:, :4], w, b), "4 maps where the kernels have 16"),
    "float64 maps": (lambda x, w, b: (x.double(), w, b), "are float32"),
    "float64 kernels": (lambda x, w, b: (x, w.double(), b), "are float32"),
    "unbatched": (lambda x, w, b: (x[0], w, b), "are float32"),
    "5x5": (lambda x, w, b: (x, F.pad(w, (1, 1, 1, 1)), b), "3x3, of multiples of 16"),
    "kernels of 8": (lambda x, w, b: (x, w[:8], b[:8]), "3x3, of multiples of 16"),
}


@needs_compiler
@pytest.mark.parametrize("kind", WRONG)
def test_what_does_not_belong_together_is_told(kind):
    change, said = WRONG[kind]
    with pytest.raises(ValueError, match=said):
        convolve(*change(*drawn((1, 4, 4, 16, 16))))


@needs_compiler
def test_a_bias_need_not_lie_together():
    x, weight, _ = drawn((1, 4, 4, 16, 16))
    bias = torch.arange(32.0)[::2]
    torch.testing.assert_close(convolve(x, weight, bias), direct(x, weight, bias), rtol=0, atol=1e-4)


@needs_compiler
@pytest.mark.parametrize("call", ["convolve", "weight_gradient"])
def test_too_little_memory_is_told(monkeypatch, call):
    class Library:
        def __getattr__(self, name):
            return lambda *_: name == call

    x, weight, _ = (one.requires_grad_() for one in drawn((1, 4, 4, 16, 16)))
    y = convolve(x, weight, None).sum()
    monkeypatch.setattr(winograd, "_library", Library)
    with pytest.raises(MemoryError, match="of 256 values" if call == "convolve" else "of 2,304 weights"):
        y.backward()


LIMITED = """
import ctypes, resource
from common.training.winograd import _library
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, -1))
none, long, many = ctypes.c_void_p(), ctypes.c_int64, 1 << 26
print(_library().convolve(none, none, none, none, long(0), 1, 1, many, 16, 1),
      _library().weight_gradient(none, none, none, *map(long, (1, 1, 1, 1, 0)), 1, 1, 16, many, 1))
"""


@needs_compiler
def test_the_library_survives_too_little_memory():
    done = subprocess.run([sys.executable, "-c", LIMITED], cwd=paths.ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["1", "1"], done.stderr


@needs_compiler
@pytest.mark.parametrize("options", [["-march=native", "-mno-avx512f"], []], ids=["AVX2", "any processor"])
def test_processors_with_shorter_vectors_compute_the_same(tmp_path, monkeypatch, options):
    library = tmp_path / "winograd.so"
    compiler = shlex.split(os.environ.get("CC", "cc"))
    command = [*compiler, *compile_c.FLAGS, "-fopenmp", *options, str(winograd.SOURCE), "-o", str(library)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this compiler does not know the options")
    shapes = ((2, 9, 6, 48, 80), (1, 20, 20, 16, 32))
    before = [with_gradients(convolve, *drawn(shape)) for shape in shapes]
    shorter = ctypes.CDLL(str(library))
    monkeypatch.setattr(winograd, "_library", lambda: shorter)
    for shape, expected in zip(shapes, before, strict=True):
        for ours, theirs in zip(with_gradients(convolve, *drawn(shape)), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=CLOSE * theirs.std().item())
