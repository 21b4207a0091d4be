"""Products, diagonals and traces against dense Hessians in float64, on the settings in which models are trained."""

import contextlib
import logging

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from hessiod.torch import hessian_diagonal, hvp

TIME, WIDTH, CLASSES = 5, 8, 7


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.project, self.merge = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        q, k, v = self.project(self.norm(x)).view(*x.shape[:2], 3, 2, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + self.merge(mixed.transpose(1, 2).reshape(x.shape))


class GPT(nn.Module):
    """Fused attention; its block checkpointed or not."""

    def __init__(self, recompute=None, dropout=0.0):
        super().__init__()
        self.embed, self.block = nn.Embedding(CLASSES, WIDTH), Attention()
        self.drop, self.head, self.recompute = nn.Dropout(dropout), nn.Linear(WIDTH, CLASSES), recompute

    def forward(self, tokens):
        x = self.drop(self.embed(tokens))
        x = self.block(x) if self.recompute is None else checkpoint(self.block, x, use_reentrant=self.recompute)
        return self.head(F.gelu(x))


TOKENS = torch.randint(CLASSES, (3, TIME), generator=torch.Generator().manual_seed(0))


def gpt(dtype=torch.float32, **settings):
    torch.manual_seed(0)
    return GPT(**settings).to(dtype)


def loss_of(model):
    return F.cross_entropy(model(TOKENS).flatten(0, 1), TOKENS.roll(1, 0).flatten())


def vectors_for(params, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype) for p in params]


def flat(tensors):
    return torch.cat([tensor.detach().double().flatten() for tensor in tensors])


def dense_product(closure, params, vectors):
    """From the whole Hessian, column by column of the gradient's graph, in what dtype the closure computes."""
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        grads = torch.autograd.grad(closure(), params, create_graph=True)
    grads = torch.cat([g.to_dense().flatten() for g in grads])
    rows = [torch.autograd.grad(g, params, retain_graph=True, materialize_grads=True) for g in grads]
    return torch.stack([flat(entry.to_dense() for entry in row) for row in rows]) @ flat(vectors)


def reference():
    """The small GPT's product in float64, from its dense Hessian."""
    model = gpt(torch.float64)
    params = list(model.parameters())
    return dense_product(lambda: loss_of(model), params, vectors_for(params))


@pytest.fixture(scope="module")
def truth():
    return reference()


def error(found, expected):
    return float((flat(found) - expected).norm() / expected.norm())


def compiled(model):
    return torch.compile(model, backend="aot_eager")


SETTINGS = {
    "eager with fused attention": (lambda: gpt(), contextlib.nullcontext),
    "non-reentrant checkpoint": (lambda: gpt(recompute=False), contextlib.nullcontext),
    "compiled": (lambda: compiled(gpt()), contextlib.nullcontext),
    "compiled part": (lambda: part_compiled(), contextlib.nullcontext),
}


def part_compiled():
    model = gpt()
    model.block = compiled(model.block)
    return model


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("method", ["auto", "reverse"])
def test_an_exact_method_is_exact(setting, method, truth):
    model = SETTINGS[setting][0]()
    params = list(model.parameters())
    assert error(hvp(lambda: loss_of(model), params, vectors_for(params), method), truth) < 1e-5


@pytest.mark.parametrize("setting", ["eager with fused attention", "compiled", "compiled part"])
def test_forward_over_reverse_is_exact(setting, truth):
    model = SETTINGS[setting][0]()
    params = list(model.parameters())
    assert error(hvp(lambda: loss_of(model), params, vectors_for(params), "forward"), truth) < 1e-5


@pytest.mark.parametrize("recompute", [None, False, True])
def test_differences_are_within_a_thousandth_whatever_the_checkpoint(recompute, truth):
    model = gpt(recompute=recompute)
    params = list(model.parameters())
    found = hvp(lambda: loss_of(model), params, vectors_for(params), "finite-difference")
    assert 1e-7 < error(found, truth) < 1e-3
    assert all(param.grad is None for param in params)


def test_a_compiled_model_is_used_compiled_afterwards():
    model = gpt()
    params, counts = list(model.parameters()), []

    def backend(graph, _):
        counts.append(1)
        return graph.forward

    fast = torch.compile(model, backend=backend)
    loss_of(fast)
    hvp(lambda: loss_of(fast), params, vectors_for(params))
    loss_of(fast)
    assert counts == [1]


def test_autocast_is_as_good_as_its_arithmetic(truth):
    model = gpt()
    params = list(model.parameters())

    def closure():
        with torch.autocast("cpu", torch.bfloat16):
            return loss_of(model)

    assert 1e-4 < error(hvp(closure, params, vectors_for(params)), truth) < 2e-2
    with torch.autocast("cpu", torch.bfloat16):
        outside = hvp(lambda: loss_of(model), params, vectors_for(params))
    assert 1e-4 < error(outside, truth) < 2e-2


# One layer or loss at a time, where frameworks differ


def lstm():
    return nn.LSTM(3, 4), lambda m: m(torch.linspace(-1, 1, 36, dtype=torch.float64).view(6, 2, 3))[0]


def batch_norm():
    x = torch.linspace(-1, 1, 18, dtype=torch.float64).view(6, 3).cos()
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), lambda m: m(x)


def sparse_embedding():
    return nn.Embedding(5, 3, sparse=True), lambda m: m(torch.tensor([[0, 2], [2, 4]])).sum(1).tanh()


def attention():
    x = torch.linspace(-1, 1, 24, dtype=torch.float64).view(2, 3, 4).sin()
    return nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True), lambda m: m(x)


def convolution():
    x = torch.linspace(-1, 1, 72, dtype=torch.float64).view(2, 1, 6, 6).sin()
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.SiLU(), nn.AvgPool2d(2), nn.GroupNorm(1, 2)), lambda m: m(x)


@pytest.mark.parametrize("make", [lstm, batch_norm, sparse_embedding, attention, convolution])
def test_layers_against_the_dense_hessian(make):
    torch.manual_seed(0)
    model, run = make()
    model.double()
    params = list(model.parameters())

    def closure():
        y = run(model)
        return (y**3 + y).mean()

    expected = dense_product(closure, params, vectors_for(params))
    assert error(hvp(closure, params, vectors_for(params)), expected) < 1e-10
    assert error(hvp(closure, params, vectors_for(params), "finite-difference"), expected) < 1e-7


# What is remembered


def test_the_method_is_found_once_and_logged_once(caplog):
    model, runs = gpt(), []
    params = list(model.parameters())

    def product():
        def closure():  # a new object of the same code each time, as in a training loop
            runs.append(1)
            return loss_of(model)

        return hvp(closure, params, vectors_for(params))

    with caplog.at_level(logging.INFO, "hessiod"):
        product()
        first, messages = len(runs), [record.getMessage() for record in caplog.records]
        runs.clear()
        product()
    assert first > 1
    assert len(runs) == 1
    assert [m for m in messages if m.startswith("curvature: reverse mode over reverse mode for")] == messages
    assert len(messages) == len(caplog.records) == 1


def test_forward_mode_is_found_where_reverse_mode_fails_and_what_changes_is_found_anew():
    class Cube(torch.autograd.Function):
        """Twice differentiable by forward mode only."""

        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            ctx.save_for_forward(x)
            return x**3

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return grad * 3 * x * x

        @staticmethod
        def jvp(ctx, tangent):
            (x,) = ctx.saved_tensors
            return tangent * 3 * x * x

    w = torch.tensor([1.0, 2.0], requires_grad=True)
    cube = [Cube.apply]
    closure = lambda: cube[0](w).sum()  # noqa: E731
    with pytest.raises(Exception, match="Cube"):
        hvp(closure, [w], [torch.ones(2)], "reverse")
    cube[0] = lambda x: x**3
    torch.testing.assert_close(hvp(closure, [w], [torch.ones(2)])[0], torch.tensor([6.0, 12.0]))
    cube[0] = Cube.apply
    with pytest.raises(Exception, match="Cube"):
        hvp(closure, [w], [torch.ones(2)], "reverse")


def test_a_batch_in_parts_is_the_mean_of_the_parts():
    model = gpt(torch.float64)
    params = list(model.parameters())

    def part(row):
        return lambda: F.cross_entropy(model(TOKENS[row : row + 1]).flatten(0, 1), TOKENS.roll(1, 0)[row])

    whole = hvp(lambda: loss_of(model), params, vectors_for(params))
    parts = hvp([part(row) for row in range(3)], params, vectors_for(params))
    assert error(parts, flat(whole)) < 1e-12
    diagonal = hessian_diagonal([part(row) for row in range(3)], params, samples=2)
    assert error(diagonal, flat(hessian_diagonal(lambda: loss_of(model), params, samples=2))) < 1e-12


def test_many_samples_are_the_mean_of_single_probes():
    from hessiod.backends.numpy import namespace as xp
    from hessiod.core import philox

    model = gpt(torch.float64)
    params = list(model.parameters())
    likes = [np.zeros(tuple(p.shape)) for p in params]
    expected = 0.0
    for sample in range(3):
        probe = [torch.from_numpy(u) for u in philox.rademacher_probes(xp, likes, seed=5, step=0, sample=sample)]
        expected = expected + flat(probe) * flat(hvp(lambda: loss_of(model), params, probe)) / 3
    for method in ("reverse", "forward"):
        found = hessian_diagonal(lambda: loss_of(model), params, samples=3, seed=5, method=method)
        assert error(found, expected) < 1e-12
