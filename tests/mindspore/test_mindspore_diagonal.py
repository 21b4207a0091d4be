"""AdaHessian, Apollo, DiagonalNewton and Sophia's options through TrainStep, against hessiod.torch on the same data."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Tensor, nn
from torch.nn import functional as F

import hessiod.mindspore as hessiod_mindspore
import hessiod.torch as hessiod_torch
from hessiod.core import InvalidArgument

ROWS, STEPS = 12, 14
generator = np.random.default_rng(5)
INPUTS = generator.normal(size=(STEPS, ROWS, 5)).astype(np.float32)
TARGETS = generator.normal(size=(STEPS, ROWS, 3)).astype(np.float32)
WEIGHTS = [generator.normal(size=shape).astype(np.float32) / 2 for shape in ((7, 5), (7,), (3, 7), (3,))]


class HalfSquare(nn.Cell):
    """Half the mean squared error, which MindSpore differentiates twice."""

    def construct(self, output, target):
        return 0.5 * ((output - target) * (output - target)).mean()


def filled(params):
    for param, array in zip(params, WEIGHTS, strict=True):
        param.asnumpy()[...] = array
    return params


def with_mindspore(name, **options):
    net = nn.SequentialCell(nn.Dense(5, 7), nn.Tanh(), nn.Dense(7, 3))
    filled(net.trainable_params())
    optimizer = getattr(hessiod_mindspore, name)(net.trainable_params(), learning_rate=0.02, **options)
    step = hessiod_mindspore.TrainStep(net, HalfSquare(), optimizer)
    losses = [float(step(Tensor(x), Tensor(y)).asnumpy()) for x, y in zip(INPUTS, TARGETS, strict=True)]
    return losses, optimizer


def with_torch(name, **options):
    net = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3))
    for param, array in zip(net.parameters(), WEIGHTS, strict=True):
        param.data = torch.tensor(array)
    optimizer, losses = getattr(hessiod_torch, name)(net.parameters(), lr=0.02, **options), []
    for x, y in zip(torch.tensor(INPUTS), torch.tensor(TARGETS), strict=True):
        output = net(x)
        loss = 0.5 * F.mse_loss(output, y)
        if getattr(optimizer, "curvature_due", False):
            given = {"logits": output} if optimizer.param_groups[0].get("likelihood") else {}
            optimizer.update_curvature(loss=loss, **given)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, optimizer


# eps and damping keep the comparison well conditioned: an entry of the curvature near zero has a large relative
# rounding error in either framework, and it is divided by.
RUNS = {
    "adahessian": ("AdaHessian", {}),
    "adahessian, blocks, every 3": ("AdaHessian", {"every": 3, "spatial_averaging": 4}),
    "adahessian, power, normal probes": ("AdaHessian", {"hessian_power": 0.5, "probe": "normal", "eps": 0.1}),
    "apollo": ("Apollo", {"warmup": 6, "weight_decay": 0.1}),
    "apollow": ("ApolloW", {"warmup": 0, "sigma": 0.1, "weight_decay": 0.1}),
    "apollo, stable": ("Apollo", {"warmup": 3, "weight_decay": 0.1, "weight_decay_type": "stable"}),
    "diagonal newton, 2 probes": ("DiagonalNewton", {"damping": 0.1, "num_vectors": 2}),
    "diagonal newton, root": ("DiagonalNewton", {"damping": 0.1, "power": 0.5, "every": 4, "weight_decay": 0.1}),
    "sophia-h, warm": ("SophiaH", {"rho": 0.5, "every": 3, "samples": 2, "warm_start": True}),
    "sophia-g, official timing": ("SophiaG", {"rho": 0.5, "every": 3, "likelihood": "gaussian", "timing": "official"}),
    "sophia-g, half": ("SophiaG", {"rho": 0.5, "every": 3, "likelihood": "gaussian", "fraction": 0.5}),
}


@pytest.mark.parametrize("run", RUNS)
def test_a_run_follows_torch(run):
    name, options = RUNS[run]
    ours, optimizer = with_mindspore(name, **options)
    theirs, mirror = with_torch(name, **options)
    assert np.allclose(ours, theirs, rtol=1e-5, atol=0)
    for slot in optimizer.slot_names:
        for array, param in zip(getattr(optimizer, slot), mirror.param_groups[0]["params"], strict=True):
            expected = mirror.state[param][slot].numpy()
            assert np.linalg.norm(array.asnumpy() - expected) <= 1e-4 * np.linalg.norm(expected)
            assert np.linalg.norm(expected) > 0
    assert ours[-1] != ours[0]


def test_curvature_updates_are_counted_and_the_count_is_saved():
    _, optimizer = with_mindspore("AdaHessian", every=3)
    assert int(optimizer.refreshes.asnumpy()) == 5  # at steps 1, 4, 7, 10, 13
    assert "refreshes" in {param.name for param in optimizer.get_parameters()}


def test_official_timing_takes_sign_steps_first():
    _, optimizer = with_mindspore("SophiaG", every=20, likelihood="gaussian", timing="official")
    assert all(np.abs(h.asnumpy()).max() == 0 for h in optimizer.hessian)
    assert optimizer.clip_fraction() > 0.99


def test_half_precision_parameters_have_float32_state_and_train():
    net = nn.SequentialCell(nn.Dense(5, 7), nn.Tanh(), nn.Dense(7, 3)).to_float(ms.float16)
    for param, array in zip(net.trainable_params(), WEIGHTS, strict=True):
        param.set_dtype(ms.float16)
        param.asnumpy()[...] = array
    optimizer = hessiod_mindspore.SophiaG(net.trainable_params(), learning_rate=0.02, likelihood="gaussian", rho=0.5)
    step = hessiod_mindspore.TrainStep(net, HalfSquare(), optimizer)
    x, y = Tensor(INPUTS[0].astype(np.float16)), Tensor(TARGETS[0].astype(np.float16))
    losses = [float(step(x, y).asnumpy()) for _ in range(20)]
    assert losses[-1] < 0.9 * losses[0]
    assert {param.dtype for param in net.trainable_params()} == {ms.float16}
    assert {array.dtype for slot in optimizer.slot_names for array in getattr(optimizer, slot)} == {ms.float32}


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("AdaHessian", {"spatial_averaging": 0}, "spatial_averaging"),
        ("AdaHessian", {"hessian_power": 2.0}, "hessian_power"),
        ("AdaHessian", {"samples": 0}, "samples"),
        ("AdaHessian", {"probe": "uniform"}, "probe"),
        ("Apollo", {"sigma": 0.0}, "sigma"),
        ("Apollo", {"weight_decay_type": "l2"}, "weight_decay_type"),
        ("DiagonalNewton", {"damping": 0.0}, "damping"),
        ("DiagonalNewton", {"power": 2}, "power"),
        ("SophiaG", {"fraction": 0.0}, "fraction"),
        ("SophiaH", {"timing": "late"}, "timing"),
        ("Sophia", {"estimator": "fisher"}, "estimator"),
    ],
)
def test_bad_options_are_refused_by_name(name, options, said):
    net = nn.Dense(5, 3)
    with pytest.raises(InvalidArgument, match=f"^{said}: found"):
        getattr(hessiod_mindspore, name)(net.trainable_params(), **options)
