"""``opt.diagnostics()`` on MindSpore: the same keys and numbers as on torch, by group; update norms when asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mindspore import Tensor, nn
from torch.nn import functional as F

import hessiod.mindspore as hessiod_mindspore
import hessiod.torch as hessiod_torch
from hessiod.mindspore import AdamW, SophiaG, TrainStep

generator = np.random.default_rng(5)
INPUTS = generator.normal(size=(5, 12, 5)).astype(np.float32)
TARGETS = generator.normal(size=(5, 12, 3)).astype(np.float32)
WEIGHTS = [generator.normal(size=shape).astype(np.float32) / 2 for shape in ((7, 5), (7,), (3, 7), (3,))]
KINDS = {
    "SophiaG": dict(rho=0.3, every=2, likelihood="gaussian"),
    "AdaHessian": dict(eps=0.1),
    "DiagonalNewton": dict(damping=0.1),
    "Apollo": dict(sigma=0.1, warmup=2),
    "AdamW": {},
}


class HalfSquare(nn.Cell):
    """Half the mean squared error."""

    def construct(self, output, target):
        return 0.5 * ((output - target) * (output - target)).mean()


def on_mindspore(name):
    net = nn.SequentialCell(nn.Dense(5, 7), nn.Tanh(), nn.Dense(7, 3))
    params = net.trainable_params()
    for param, array in zip(params, WEIGHTS, strict=True):
        param.asnumpy()[...] = array
    groups = [{"params": params[:2]}, {"params": params[2:], "lr": 0.05}]
    optimizer = getattr(hessiod_mindspore, name)(groups, learning_rate=0.02, **KINDS[name])
    step = TrainStep(net, HalfSquare(), optimizer)
    before = optimizer.diagnostics()
    optimizer.watch_updates()
    for x, y in zip(INPUTS, TARGETS, strict=True):
        step(Tensor(x), Tensor(y))
    return before, optimizer.diagnostics()


def on_torch(name):
    net = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3))
    params = list(net.parameters())
    for param, array in zip(params, WEIGHTS, strict=True):
        param.data = torch.tensor(array)
    groups = [{"params": params[:2]}, {"params": params[2:], "lr": 0.05}]
    optimizer = getattr(hessiod_torch, name)(groups, lr=0.02, **KINDS[name])
    optimizer.watch_updates()
    for x, y in zip(torch.tensor(INPUTS), torch.tensor(TARGETS), strict=True):
        output = net(x)
        loss = 0.5 * F.mse_loss(output, y)
        if getattr(optimizer, "curvature_due", False):
            optimizer.update_curvature(loss=loss, logits=output if name == "SophiaG" else None)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer.diagnostics()


@pytest.mark.parametrize("name", KINDS)
def test_the_same_keys_and_numbers_as_on_torch(name):
    before, found = on_mindspore(name)
    expected = on_torch(name)
    assert before == [{}, {}]
    assert [set(group) for group in found] == [set(group) for group in expected]
    assert "update_norm" in found[0]
    for ours, theirs in zip(found, expected, strict=True):
        for key, value in theirs.items():
            if key == "curvature":
                assert list(ours[key]) == list(value)
                span = max(abs(value["min"]), abs(value["max"]))
                assert np.allclose(list(ours[key].values()), list(value.values()), rtol=0, atol=1e-4 * span)
            else:
                assert ours[key] == pytest.approx(value, rel=1e-4)


def test_the_norm_of_an_update_by_hand():
    """With the decay in it; of a refused step there is none."""
    net = nn.Dense(5, 3)
    optimizer = AdamW(net.trainable_params(), learning_rate=0.1, weight_decay=0.5, nonfinite="skip")
    assert "update_norm" not in optimizer.diagnostics()[0]
    optimizer.watch_updates()
    before = [param.asnumpy().astype(np.float64) for param in optimizer.parameters]
    gradients = tuple(Tensor(np.ones(param.shape, np.float32)) for param in optimizer.parameters)
    optimizer(gradients)
    after = [param.asnumpy().astype(np.float64) for param in optimizer.parameters]
    expected = np.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(after, before, strict=True)))
    assert optimizer.diagnostics() == [{"update_norm": pytest.approx(expected, rel=1e-12)}]
    optimizer(tuple(gradient * np.nan for gradient in gradients))
    assert optimizer.diagnostics() == [{"update_norm": pytest.approx(expected, rel=1e-12)}]
    optimizer.watch_updates(False)
    optimizer(gradients)
    assert optimizer.diagnostics() == [{}]


def test_nothing_is_kept_when_not_asked_for():
    """No copy and no array beside the state."""
    net = nn.Dense(5, 3)
    optimizer = SophiaG(net.trainable_params(), likelihood="gaussian")
    TrainStep(net, nn.MSELoss(), optimizer)(Tensor(INPUTS[0]), Tensor(TARGETS[0]))
    held = sum(param.size for param in optimizer.get_parameters()) - 3 * sum(p.size for p in optimizer.parameters)
    assert held < 10
    assert optimizer.update_norms is None
