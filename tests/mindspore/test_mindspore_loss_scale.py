"""float16 nets in TrainStep under a loss scale, fixed and dynamic: skipped steps, unscaled curvature, clean state."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from hessiod.backends_mindspore.gpt import CrossEntropy
from hessiod.core import NonFinite
from hessiod.mindspore import SophiaG, SophiaH, TrainStep

generator = np.random.default_rng(0)
WEIGHTS = [generator.normal(size=shape).astype(np.float32) / 2 for shape in ((7, 5), (7,), (4, 7), (4,))]
INPUTS = generator.normal(size=(7, 12, 5)).astype(np.float32)
TARGETS = generator.integers(4, size=(7, 12)).astype(np.int32)


class Half(nn.Cell):
    """A perceptron in float16, whose output is float16 too."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Dense(5, 7), nn.Dense(7, 4)

    def construct(self, x):
        return self.second(ops.tanh(self.first(ops.cast(x, ms.float16))))


def new(kind, loss_scale, nonfinite="raise"):
    net = Half()
    for param, array in zip(net.trainable_params(), WEIGHTS, strict=True):
        param.set_dtype(ms.float16)
        param.asnumpy()[...] = array
    net.to_float(ms.float16)
    settings = dict(learning_rate=0.01, rho=1.0, every=2, beta2=0.9, nonfinite=nonfinite)
    optimizer = kind(net.trainable_params(), **settings)
    return optimizer, TrainStep(net, CrossEntropy(), optimizer, loss_scale=loss_scale)


def run(step, count=7):
    return [float(step(Tensor(x), Tensor(y)).asnumpy()) for x, y in zip(INPUTS[:count], TARGETS, strict=False)]


def arrays(optimizer):
    groups = [optimizer.parameters, optimizer.exp_avg, optimizer.hessian]
    return [np.concatenate([array.asnumpy().astype(np.float64).ravel() for array in group]) for group in groups]


def scale_of(step):
    return float(step.loss_scale.current().asnumpy())


@pytest.fixture(scope="module")
def unscaled():
    """SophiaG and SophiaH without a loss scale."""
    found = {}
    for kind in (SophiaG, SophiaH):
        optimizer, step = new(kind, None)
        run(step)
        found[kind] = arrays(optimizer)
    return found


@pytest.mark.parametrize("kind", [SophiaG, pytest.param(SophiaH, marks=pytest.mark.slow)])
def test_a_scale_of_1024_equals_none_within_a_thousandth(kind, unscaled):
    """In float16 the scale also saves gradients that would be denormal, so the bits differ a little."""
    optimizer, step = new(kind, ms.amp.FixedLossScaleManager(1024.0))
    run(step)
    assert (optimizer.steps, int(optimizer.refused.asnumpy())) == (7, 0)
    for ours, theirs in zip(arrays(optimizer), unscaled[kind], strict=True):
        assert np.linalg.norm(ours - theirs) < 1e-3 * np.linalg.norm(theirs)


# 2^20 is far above what float16 holds, 2^16. The scale halves until steps are taken and doubles after three of them.
SCALERS = {
    "manager": lambda: ms.amp.DynamicLossScaleManager(2.0**20, 2, 3),
    "cell": lambda: nn.DynamicLossScaleUpdateCell(2.0**20, 2, 3),
    "scaler": lambda: ms.amp.DynamicLossScaler(2.0**20, 2, 3),
}


@pytest.mark.parametrize(
    ("mode", "kind", "scaler"),
    [("graph", SophiaG, "manager"), ("pynative", SophiaG, "scaler"), ("graph", SophiaH, "cell")],
    indirect=["mode"],
)
def test_an_overflow_skips_the_step_with_its_curvature(mode, kind, scaler):
    """Nothing is raised, nothing changes but the scale, and nothing that is not finite enters the state."""
    optimizer, step = new(kind, SCALERS[scaler]())
    start = arrays(optimizer)
    taken = []
    for x, y in [*zip(INPUTS, TARGETS, strict=True)] * 2:
        before, steps, scale, due = arrays(optimizer), optimizer.steps, scale_of(step), optimizer.curvature_due
        step(Tensor(x), Tensor(y))
        taken.append(optimizer.steps > steps)
        if taken[-1]:
            changed = (arrays(optimizer)[2] != before[2]).any()
            assert changed == due
        else:
            assert scale_of(step) == scale / 2
            assert optimizer.curvature_due == due
            assert all((now == then).all() for now, then in zip(arrays(optimizer), before, strict=True))
        assert all(np.isfinite(array).all() for array in arrays(optimizer))
    assert not taken[0]
    assert sum(taken) == optimizer.steps >= 6
    assert int(optimizer.refused.asnumpy()) == taken.count(False)
    assert int(optimizer.refreshes.asnumpy()) == (optimizer.steps + 1) // 2
    assert any((now != then).any() for now, then in zip(arrays(optimizer), start, strict=True))


def test_a_batch_that_is_not_finite_is_no_overflow():
    """At scale 1 there is nothing left to lower: the optimizer's own setting decides, and it raises."""
    optimizer, step = new(SophiaG, ms.amp.DynamicLossScaler(2, 2, 100))
    bad = INPUTS[0].copy()
    bad[0, 0] = np.nan
    step(Tensor(bad), Tensor(TARGETS[0]))
    assert scale_of(step) == 1
    with pytest.raises(NonFinite, match="nothing was changed"):
        step(Tensor(bad), Tensor(TARGETS[0]))
    run(step, 1)
    assert (optimizer.steps, int(optimizer.refused.asnumpy())) == (1, 2)
