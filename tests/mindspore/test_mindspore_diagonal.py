"""AdaHessian, Apollo, DiagonalNewton and Sophia's options through TrainStep, against hessiod.torch on the same data."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Tensor, nn, ops
from mindspore.nn.learning_rate_schedule import LearningRateSchedule
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
SLOW = ("adahessian", "apollo", "diagonal newton, root")  # what the others and the digits' runs have too


@pytest.mark.parametrize("run", [pytest.param(run, marks=[pytest.mark.slow][: run in SLOW]) for run in RUNS])
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


class Tied(nn.Cell):
    """One matrix as embedding and as head, and a parameter that the loss does not use."""

    def __init__(self):
        super().__init__()
        self.table = ms.Parameter(Tensor(WEIGHTS[0]), name="table")
        self.unused = ms.Parameter(Tensor(WEIGHTS[1]), name="unused")

    def construct(self, x):
        return ops.matmul(ops.tanh(ops.matmul(x, self.table.T)), self.table)


def test_tied_weights_follow_torch_and_an_unused_parameter_has_gradient_zero():
    """SophiaH, with an estimate through both uses. On torch an unused parameter has no gradient and is passed over."""
    net, options = Tied(), dict(rho=0.5, every=2, weight_decay=0.0)
    optimizer = hessiod_mindspore.SophiaH(net.trainable_params(), learning_rate=0.02, **options)
    step = hessiod_mindspore.TrainStep(net, HalfSquare(), optimizer)
    table, unused = (torch.nn.Parameter(torch.tensor(array)) for array in WEIGHTS[:2])
    mirror = hessiod_torch.SophiaH([table, unused], lr=0.02, missing="skip", **options)
    for x in INPUTS[:3]:
        step(Tensor(x), Tensor(x))
        loss = 0.5 * F.mse_loss(torch.tanh(torch.tensor(x) @ table.T) @ table, torch.tensor(x))
        if mirror.curvature_due:
            mirror.update_curvature(loss=loss)
        loss.backward()
        mirror.step()
        mirror.zero_grad()
    assert np.allclose(net.table.asnumpy(), table.detach().numpy(), rtol=1e-5, atol=1e-6)
    assert np.allclose(optimizer.hessian[0].asnumpy(), mirror.state[table]["hessian"].numpy(), rtol=1e-4, atol=1e-5)
    assert (net.unused.asnumpy() == WEIGHTS[1]).all()
    assert not optimizer.hessian[1].asnumpy().any()


class Falling(LearningRateSchedule):
    """0.1, 0.05, 0.025, ..."""

    def construct(self, global_step):
        return 0.1 * ops.pow(Tensor(0.5, ms.float32), ops.cast(global_step, ms.float32))


@pytest.mark.parametrize("kind", ["list", "Tensor", "Cell"])
def test_apollos_warm_up_multiplies_the_schedule(kind):
    """The share of step t is from warmup_start to 1 over 4 steps, times the schedule's rate of that step."""
    table = [0.1 * 0.5**t for t in range(6)]
    rate = {"list": table, "Tensor": Tensor(table, ms.float32), "Cell": Falling()}[kind]
    theta = ms.Parameter(Tensor(WEIGHTS[0]), name="theta")
    mirror_theta = torch.nn.Parameter(torch.tensor(WEIGHTS[0]))
    options = dict(warmup=4, warmup_start=0.25, sigma=0.5)
    optimizer = hessiod_mindspore.Apollo([theta], learning_rate=rate, **options)
    mirror = hessiod_torch.Apollo([mirror_theta], lr=1.0, **options)
    for t, lr in enumerate(table):
        before = theta.asnumpy().copy()
        gradient = np.cos(before + t).astype(np.float32)
        optimizer((Tensor(gradient),))
        mirror.param_groups[0]["lr"] = float(np.float32(lr))
        mirror_theta.grad = torch.tensor(gradient)
        mirror.step()
        if t == 0:  # the first step is SGD's, with the rate lr * warmup_start / sigma
            assert np.allclose(before - theta.asnumpy(), 0.1 * 0.25 / 0.5 * gradient, rtol=1e-5)
        assert np.allclose(theta.asnumpy(), mirror_theta.detach().numpy(), rtol=1e-6, atol=1e-7)


def test_float16_parameters_round_once():
    """A step in float32 from the parameter's value, rounded into it, as torch's."""
    theta = ms.Parameter(Tensor(WEIGHTS[0], ms.float16), name="theta")
    twin = torch.nn.Parameter(torch.tensor(WEIGHTS[0]).to(torch.float16))
    optimizer, mirror = hessiod_mindspore.AdamW([theta], learning_rate=0.01), hessiod_torch.AdamW([twin], lr=0.01)
    for x in INPUTS[:4]:
        gradient = np.resize(x, WEIGHTS[0].shape).astype(np.float32)
        optimizer((Tensor(gradient, ms.float16),))
        twin.grad = torch.tensor(gradient).to(twin.dtype)
        mirror.step()
    assert (ops.cast(theta, ms.float32).asnumpy() == twin.detach().float().numpy()).all()
    assert optimizer.exp_avg[0].dtype == ms.float32
    assert (optimizer.exp_avg[0].asnumpy() == mirror.state[twin]["exp_avg"].numpy()).all()
