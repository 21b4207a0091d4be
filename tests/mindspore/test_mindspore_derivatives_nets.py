"""Hessian-vector products of unmodified nets with the stock losses, against torch in float64."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Tensor, nn, ops
from torch.nn import functional as F

from hessiod.backends.numpy import namespace as numpy_xp
from hessiod.core import philox
from hessiod.mindspore import SophiaH, TrainStep, hvp

SMOOTH, KINKED = 1e-5, 1e-4


def drawn(shape, seed, scale=1.0):
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def filled(params, scale):
    """Give parameters values, and return these by name."""
    for place, param in enumerate(params):
        fresh = drawn(param.shape, 100 + place, scale)
        param.asnumpy()[...] = 1 + 0.1 * fresh if param.name.endswith("gamma") else fresh
    return {param.name: param.asnumpy().copy() for param in params}


def truth(loss, values, vectors):
    """The product of a Hessian in float64; ``loss`` takes tensors by the parameters' names."""
    leaves = {name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in values.items()}
    gradients = torch.autograd.grad(loss(leaves), list(leaves.values()), create_graph=True)
    slope = sum((g * torch.tensor(v)).sum() for g, v in zip(gradients, vectors, strict=True))
    return [product.numpy() for product in torch.autograd.grad(slope, list(leaves.values()))]


def error(products, exact):
    """The norm of the difference over all parameters, relative to the norm."""
    difference = sum(np.sum((p.asnumpy() - e) ** 2) for p, e in zip(products, exact, strict=True))
    return np.sqrt(difference / sum(np.sum(e**2) for e in exact))


def measured(net, loss_fn, inputs, loss, scale=0.5):
    """The relative error of a product through ``WithLossCell``; net and buffers are as before."""
    params = net.trainable_params()
    values = filled(params, scale)
    buffers = {param.name: param.asnumpy().copy() for param in net.get_parameters() if not param.requires_grad}
    cells = [type(cell) for _, cell in net.cells_and_names()]
    vectors = [drawn(param.shape, 500 + place) for place, param in enumerate(params)]
    forward = nn.WithLossCell(net, loss_fn)
    forward.set_train(net.training)
    found = hvp(forward, params, list(map(Tensor, vectors)), tuple(map(Tensor, inputs)))
    assert all((param.asnumpy() == values[param.name]).all() for param in params)
    assert all((p.asnumpy() == buffers[p.name]).all() for p in net.get_parameters() if p.name in buffers)
    assert [type(cell) for _, cell in net.cells_and_names()] == cells
    return error(found, truth(loss, values, vectors))


ROWS, WIDTH, CLASSES = 8, 5, 4
X, Y = drawn((ROWS, WIDTH), 1), np.arange(ROWS, dtype=np.int32) % CLASSES
ACTIVATIONS = {
    "tanh": (nn.Tanh, torch.tanh, SMOOTH),
    "relu": (nn.ReLU, torch.relu, KINKED),
    "gelu, tanh": (nn.GELU, lambda x: F.gelu(x, approximate="tanh"), SMOOTH),
    "gelu, erf": (lambda: nn.GELU(approximate=False), F.gelu, SMOOTH),
    "silu": (nn.SiLU, F.silu, SMOOTH),
    "elu": (nn.ELU, F.elu, KINKED),
    "softplus": (lambda: Softplus(), F.softplus, SMOOTH),
}


class Softplus(nn.Cell):
    def construct(self, x):
        return ops.softplus(x)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_perceptron(name):
    activation, twin, bound = ACTIVATIONS[name]
    net = nn.SequentialCell(nn.Dense(WIDTH, 7), activation(), nn.Dense(7, CLASSES))

    def loss(p):
        hidden = twin(F.linear(torch.tensor(X).double(), p["0.weight"], p["0.bias"]))
        return F.cross_entropy(F.linear(hidden, p["2.weight"], p["2.bias"]), torch.tensor(Y).long())

    assert measured(net, nn.CrossEntropyLoss(), (X, Y), loss) < bound


IMAGES = drawn((6, 2, 8, 8), 2)
LABELS = np.array([0, 1, 2, 0, 1, 2], np.int32)


def batch_norm(x, p, name):
    return F.batch_norm(x, None, None, p[f"{name}.gamma"], p[f"{name}.beta"], training=True)


POOLS = {
    "max": (lambda: nn.MaxPool2d(2, 2), lambda x: F.max_pool2d(x, 2, 2)),
    "overlapping max with padding": (
        lambda: nn.MaxPool2d(3, 2, pad_mode="pad", padding=1),
        lambda x: F.max_pool2d(x, 3, 2, padding=1),
    ),
    "average": (lambda: nn.AvgPool2d(2, 2), lambda x: F.avg_pool2d(x, 2, 2)),
}


@pytest.mark.parametrize("pool", POOLS)
def test_convolutions_with_batch_norm_in_training(pool):
    """The last loss is one of the two whose double gradient MindSpore has wrong without a word."""
    make, twin = POOLS[pool]
    layers = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), make(), nn.Flatten(), nn.Dense(64, 3)
    net = nn.SequentialCell(*layers).set_train()

    def loss(p):
        x = batch_norm(F.conv2d(torch.tensor(IMAGES).double(), p["0.weight"], padding=1), p, "1")
        x = twin(torch.relu(x)).flatten(1)
        return F.cross_entropy(F.linear(x, p["5.weight"], p["5.bias"]), torch.tensor(LABELS).long())

    loss_fn = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")
    assert measured(net, loss_fn, (IMAGES, LABELS), loss, scale=0.3) < KINKED


class ResNet(nn.Cell):
    """A residual block and a head."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(2, 4, 3, stride=2, pad_mode="pad", padding=1), nn.BatchNorm2d(4)
        self.conv2, self.norm2 = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)
        self.short, self.norm3 = nn.Conv2d(2, 4, 1, stride=2), nn.BatchNorm2d(4)
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Dense(4, 3)

    def construct(self, x):
        y = ops.relu(self.norm1(self.conv1(x)))
        y = ops.relu(self.norm2(self.conv2(y)) + self.norm3(self.short(x)))
        return self.head(ops.flatten(self.pool(y)))


def test_residual_block():
    def loss(p):
        x = torch.tensor(IMAGES).double()
        y = torch.relu(batch_norm(F.conv2d(x, p["conv1.weight"], stride=2, padding=1), p, "norm1"))
        y = batch_norm(F.conv2d(y, p["conv2.weight"], padding=1), p, "norm2")
        y = torch.relu(y + batch_norm(F.conv2d(x, p["short.weight"], stride=2), p, "norm3"))
        logits = F.linear(y.mean((2, 3)), p["head.weight"], p["head.bias"])
        return F.cross_entropy(logits, torch.tensor(LABELS).long())

    assert measured(ResNet().set_train(), nn.CrossEntropyLoss(), (IMAGES, LABELS), loss) < KINKED


class GPT(nn.Cell):
    """A transformer block with stock layers, between an embedding and a head."""

    def __init__(self, vocabulary=11, width=8):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.norm1, self.norm2, self.norm3 = [nn.LayerNorm((width,), epsilon=1e-5) for _ in range(3)]
        self.attend, self.merge = nn.Dense(width, 3 * width), nn.Dense(width, width)
        self.expand, self.gelu, self.contract = nn.Dense(width, 4 * width), nn.GELU(), nn.Dense(4 * width, width)
        self.head = nn.Dense(width, vocabulary, has_bias=False)
        self.future = Tensor(np.triu(np.full((6, 6), -1e9, np.float32), 1))

    def construct(self, tokens):
        x = self.tokens(tokens)
        query, key, value = ops.split(self.attend(self.norm1(x)), 8, -1)
        scores = ops.matmul(query, key.swapaxes(-1, -2)) * 8**-0.5
        x = x + self.merge(ops.matmul(ops.softmax(scores + self.future, -1), value))
        x = x + self.contract(self.gelu(self.expand(self.norm2(x))))
        return self.head(self.norm3(x)).reshape(-1, 11)


TOKENS = (np.arange(12, dtype=np.int32).reshape(2, 6) * 7) % 11
NEXT = (np.arange(12, dtype=np.int32) * 5) % 11


def gpt_loss(p):
    def norm(x, name):
        return F.layer_norm(x, (8,), p[f"{name}.gamma"], p[f"{name}.beta"], eps=1e-5)

    def dense(x, name):
        return F.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])

    x = p["tokens.embedding_table"][torch.tensor(TOKENS).long()]
    query, key, value = dense(norm(x, "norm1"), "attend").split(8, -1)
    scores = query @ key.mT * 8**-0.5 + torch.triu(torch.full((6, 6), -1e9, dtype=torch.float64), 1)
    x = x + dense(torch.softmax(scores, -1) @ value, "merge")
    x = x + dense(F.gelu(dense(norm(x, "norm2"), "expand"), approximate="tanh"), "contract")
    return F.cross_entropy(F.linear(norm(x, "norm3"), p["head.weight"]).flatten(0, 1), torch.tensor(NEXT).long())


def test_transformer_block_at_a_small_scale():
    """With weights of .02 the activations are so small that LayerNorm's epsilon counts."""
    assert measured(GPT(), nn.CrossEntropyLoss(), (TOKENS, NEXT), gpt_loss, scale=0.02) < SMOOTH


def test_sophia_h_trains_the_unmodified_block():
    """With beta2 = 0 the slot after one step is the estimate itself, ``u * (H u)``; then the loss falls."""
    net = GPT()
    params = net.trainable_params()
    values = filled(params, 0.02)
    optimizer = SophiaH(params, learning_rate=0.01, beta2=0.0, every=2, seed=3)
    step = TrainStep(net, nn.CrossEntropyLoss(), optimizer)
    losses = [float(step(Tensor(TOKENS), Tensor(NEXT)).asnumpy())]
    likes = [np.zeros(value.shape) for value in values.values()]
    probes = philox.rademacher_probes(numpy_xp, likes, seed=3, step=1)
    exact = [u * product for u, product in zip(probes, truth(gpt_loss, values, probes), strict=True)]
    assert error(optimizer.hessian, exact) < SMOOTH
    losses += [float(step(Tensor(TOKENS), Tensor(NEXT)).asnumpy()) for _ in range(7)]
    assert losses[-1] < losses[0] - 0.1


class Recurrent(nn.Cell):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(WIDTH, 6, batch_first=True), nn.Dense(6, CLASSES)

    def construct(self, x):
        return self.head(self.lstm(x)[0][:, -1])


def test_lstm():
    sequence = drawn((3, 4, WIDTH), 3)

    def loss(p):
        weights = [p[f"lstm.{kind}_l0"] for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        zero = torch.zeros(1, 3, 6, dtype=torch.float64)
        out = torch.lstm(torch.tensor(sequence).double(), (zero, zero), weights, True, 1, 0.0, False, False, True)[0]
        return F.cross_entropy(F.linear(out[:, -1], p["head.weight"], p["head.bias"]), torch.tensor(Y[:3]).long())

    assert measured(Recurrent(), nn.CrossEntropyLoss(), (sequence, Y[:3]), loss) < SMOOTH


def test_the_user_sees_their_own_operators_before_and_after(mode):
    """Before and after ours, the user's own graph has the stock LayerNorm, and its wrong second derivative."""
    net = nn.LayerNorm((2,), epsilon=0.1)
    signs = Tensor([[1.0, -1.0]], ms.float32)

    class Slice(nn.Cell):
        def __init__(self):
            super().__init__()
            self.net, self.scale = net, ms.Parameter(Tensor(0.5, ms.float32), name="scale")

        def construct(self):
            return self.net(self.scale * signs)[0, 0]

    def stock(cell):
        return float(ms.jit(ms.grad(ms.grad(cell, None, cell.scale), None, cell.scale))().asnumpy())

    exact = -3 * 0.5 * 0.1 / (0.25 + 0.1) ** 2.5
    before = stock(Slice())
    cell = Slice()
    (ours,) = hvp(cell, [cell.scale], [Tensor(1.0, ms.float32)], ())
    assert float(ours.asnumpy()) == pytest.approx(exact, rel=1e-5)
    assert stock(Slice()) == before
    assert abs(before / exact - 1) > 0.1
