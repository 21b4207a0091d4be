"""TrainStep's update through compiled kernels: the bits of the step that is one graph, and nothing compiled again."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn
from mindspore.common import api

from hessiod.backends import kernels
from hessiod.core import NonFinite
from hessiod.mindspore import SGD, AdaHessian, AdamW, Apollo, DiagonalNewton, SophiaG, SophiaH, TrainStep

ROWS, WIDTH, CLASSES = 12, 5, 4
generator = np.random.default_rng(0)
X = generator.normal(size=(8, ROWS, WIDTH)).astype(np.float32)
Y = generator.integers(CLASSES, size=(8, ROWS)).astype(np.int32)
WEIGHTS = [
    generator.normal(size=shape).astype(np.float32) / 2 for shape in ((7, WIDTH), (7,), (CLASSES, 7), (CLASSES,))
]
KINDS = {
    "SophiaG": lambda params, **more: SophiaG(params, 0.02, rho=0.3, every=3, weight_decay=0.1, **more),
    "SophiaH": lambda params, **more: SophiaH(params, 0.02, rho=0.3, every=3, **more),
    "AdaHessian": lambda params, **more: AdaHessian(params, 0.05, every=2, **more),
    "DiagonalNewton": lambda params, **more: DiagonalNewton(params, 0.05, every=2, damping=0.5, **more),
    "Apollo": lambda params, **more: Apollo(params, 0.05, warmup=3, **more),
    "AdamW": lambda params, **more: AdamW(params, 0.02, **more),
    "SGD": lambda params, **more: SGD(params, 0.05, momentum=0.9, **more),
}
FAST = ("SophiaG",)
ROUNDED = {"SophiaH": 1e-6, "AdaHessian": 1e-6, "DiagonalNewton": 1e-6, "Apollo": 1e-6}
"""Where two graphs may round otherwise: second derivatives (by 51 ULP where a sum cancels), and Apollo's sums.

DiagonalNewton divides by its curvature: with its own small damping one ULP is a run of its own after eight steps.
"""


@pytest.fixture
def calls(monkeypatch):
    """How many tensors the compiled kernels moved, call by call."""
    found, real = [], kernels.Sweep.run

    def counted(self, sizes, *rest):
        found.append(len(sizes))
        return real(self, sizes, *rest)

    monkeypatch.setattr(kernels.Sweep, "run", counted)
    return found


def new(kind, step={}, **options):  # noqa: B006 - only read
    net = nn.SequentialCell(nn.Dense(WIDTH, 7), nn.Tanh(), nn.Dense(7, CLASSES))
    for param, array in zip(net.trainable_params(), WEIGHTS, strict=True):
        param.asnumpy()[...] = array
    return TrainStep(net, nn.CrossEntropyLoss(), KINDS[kind](net.trainable_params(), **options), **step)


def run(train):
    """The losses, and all weights and slots."""
    losses = [float(train(Tensor(x), Tensor(y)).asnumpy()) for x, y in zip(X, Y, strict=True)]
    optimizer = train.optimizer
    groups = [optimizer.parameters, *(getattr(optimizer, slot) for slot in optimizer.slot_names)]
    return losses, np.concatenate([param.asnumpy().ravel() for params in groups for param in params])


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow][: kind not in FAST]) for kind in KINDS])
def test_the_graphs_bits(kind, calls, monkeypatch):
    """With a fixed loss scale and, for SophiaG, clipped gradients."""
    clip = {"clip_grad": 0.3} if kind == "SophiaG" else {}
    train = new(kind, step={"loss_scale": 8.0, **clip})
    losses, found = run(train)
    assert calls == [4] * len(X)
    monkeypatch.setenv("HESSIOD_KERNELS", "eager")
    other = new(kind, step={"loss_scale": 8.0, **clip})
    expected_losses, expected = run(other)
    assert len(calls) == len(X)
    if kind in ROUNDED:
        assert np.linalg.norm(found - expected) < ROUNDED[kind] * np.linalg.norm(expected)
    else:
        assert losses == expected_losses
        assert found.tobytes() == expected.tobytes()
    assert (train.optimizer.steps, other.optimizer.steps) == (8, 8)
    if train.second_order:
        assert int(train.optimizer.refreshes.asnumpy()) == int(other.optimizer.refreshes.asnumpy()) >= 3


@pytest.mark.parametrize(("mode", "clip"), [("graph", None), ("pynative", 0.3)], indirect=["mode"])
def test_a_step_that_is_not_finite_changes_nothing(mode, clip, calls):
    """Whoever finds it, the graph that clips or the host."""
    train = new("AdamW", step={"clip_grad": clip})
    bad = X[0].copy()
    bad[0, 0] = np.inf
    with pytest.raises(NonFinite, match=r"'0\.weight' \(\d in all\)"):
        train(Tensor(bad), Tensor(Y[0]))
    assert not calls
    assert all((p.asnumpy() == w).all() for p, w in zip(train.weights, WEIGHTS, strict=True))
    assert (train.optimizer.steps, int(train.optimizer.refused.asnumpy())) == (0, 1)
    train(Tensor(X[0]), Tensor(Y[0]))
    assert (train.optimizer.steps, int(train.optimizer.refused.asnumpy())) == (1, 1)


@pytest.mark.parametrize("mode", ["graph"], indirect=True)
def test_a_graph_each_and_no_more_for_a_new_learning_rate(mode, calls):
    """With and without curvature, and one for the learning rates; none at any later step."""
    train = new("SophiaG")
    before = len(api.ms_compile_cache)
    for place in range(2):
        train(Tensor(X[place]), Tensor(Y[place]))
    assert len(api.ms_compile_cache) - before == 3
    for place in range(2, 8):
        ms.ops.assign(train.optimizer.learning_rate, Tensor(0.02 / place, ms.float32))
        train(Tensor(X[place]), Tensor(Y[place]))
    assert len(api.ms_compile_cache) - before == 3
    assert calls == [4] * 8
    train(Tensor(X[0][:7]), Tensor(Y[0][:7]))  # the control: another size does compile
    assert len(api.ms_compile_cache) - before == 4
