"""SophiaG in the loop of its authors' code, against their formula worked in float64 numpy.

update_hessian():  h = b2 * h + (1 - b2) * g^2
step(bs):          p *= 1 - lr * wd;  m = b1 * m + (1 - b1) * g
                   p -= lr * sign(m) * min(|m| / (rho * bs * h + 1e-15), 1)
"""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hessiod.core import InvalidArgument, InvalidState, NonFinite
from hessiod.torch import SophiaG

B1, B2, EVERY, ROWS, STEPS = 0.965, 0.99, 10, 64, 100
LR, DECAY = 2.0**-6, 2.0**-2  # 1 - LR * DECAY is a float32 number: the decay rounds alike in both precisions


class Official:
    """The formula, on one array."""

    def __init__(self, theta, rho):
        self.rho, self.theta, self.m, self.h = rho, theta, np.zeros_like(theta), np.zeros_like(theta)
        self.clipped = 0.0

    def update_hessian(self, grad):
        self.h = B2 * self.h + (1 - B2) * grad * grad

    def step(self, grad, bs):
        self.theta = self.theta * (1 - LR * DECAY)
        self.m = B1 * self.m + (1 - B1) * grad
        ratio = np.minimum(np.abs(self.m) / (self.rho * bs * self.h + 1e-15), 1)
        self.clipped = (ratio == 1).mean()
        self.theta = self.theta - LR * np.sign(self.m) * ratio


def optimizer(params, rho):
    return SophiaG(params, lr=LR, betas=(B1, B2), rho=rho, weight_decay=DECAY)


def test_a_hundred_steps_of_the_official_loop_equal_the_official_formula():
    """Softmax regression: numpy works out its gradients by itself, from the same inputs and the same drawn labels."""
    generator = np.random.default_rng(0)
    inputs, labels = generator.normal(size=(STEPS, ROWS, 6)), generator.integers(0, 4, (STEPS, ROWS))
    uniforms = generator.uniform(size=(STEPS, ROWS, 1))
    start = generator.normal(size=(6, 4))
    weight = torch.nn.Parameter(torch.tensor(start))
    opt, official = optimizer([weight], rho=4.0), Official(start, rho=4.0)
    clipped = []
    for step in range(STEPS):
        x = torch.tensor(inputs[step])
        F.cross_entropy(x @ weight, torch.tensor(labels[step])).backward()
        opt.step(bs=ROWS)
        opt.zero_grad()
        official.step(numpy_gradient(official.theta, inputs[step], labels[step]), ROWS)
        clipped.append(official.clipped)
        assert opt.clip_fraction() == pytest.approx(official.clipped)
        if step % EVERY == EVERY - 1:
            drawn = draw(official.theta, inputs[step], uniforms[step])
            F.cross_entropy(x @ weight, torch.tensor(drawn)).backward()
            opt.update_hessian()
            opt.zero_grad()
            official.update_hessian(numpy_gradient(official.theta, inputs[step], drawn))
    assert clipped[:EVERY] == [1.0] * EVERY  # sign steps before the first Hessian
    assert 0.05 < np.mean(clipped[EVERY:]) < 0.95
    error = np.abs(weight.detach().numpy() - official.theta) / np.abs(official.theta)
    assert error.max() < 1e-6
    np.testing.assert_allclose(opt.state[weight]["hessian"], official.h, rtol=1e-6)


def probabilities(theta, x):
    weights = np.exp(x @ theta)
    return weights / weights.sum(axis=1, keepdims=True)


def numpy_gradient(theta, x, labels):
    return x.T @ (probabilities(theta, x) - np.eye(4)[labels]) / len(x)


def draw(theta, x, uniforms):
    return (probabilities(theta, x).cumsum(axis=1) < uniforms).sum(axis=1).clip(max=3)


def test_in_float32_the_same_gradients_give_the_official_weights_too():
    generator = np.random.default_rng(1)
    start = generator.normal(size=200).astype(np.float32)
    weight = torch.nn.Parameter(torch.tensor(start))
    opt, official = optimizer([weight], rho=0.04), Official(start.astype(np.float64), rho=0.04)
    for step in range(STEPS):
        grad = generator.normal(size=200).astype(np.float32)
        weight.grad = torch.tensor(grad)
        opt.step(bs=3)
        official.step(grad.astype(np.float64), 3)
        if step % EVERY == EVERY - 1:
            sampled = (3 * generator.normal(size=200)).astype(np.float32)
            weight.grad = torch.tensor(sampled)
            opt.update_hessian()
            official.update_hessian(sampled.astype(np.float64))
    assert 0.05 < official.clipped < 0.95
    assert np.linalg.norm(weight.detach().numpy() - official.theta) / np.linalg.norm(official.theta) < 1e-6


def parameter():
    theta = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    theta.grad = torch.tensor([0.5, 0.25])
    return theta


def test_the_official_loop_never_asks_for_update_curvature():
    theta = parameter()
    opt = SophiaG([theta], every=1)
    for _ in range(3):
        opt.step(bs=4)
    opt.update_hessian()
    opt.step(bs=4)
    assert opt.steps == 4


def test_bs_is_asked_for_once_update_hessian_was_called():
    opt = SophiaG([parameter()])
    opt.update_hessian()
    with pytest.raises(InvalidState, match=r"step: this run uses update_hessian\(\); pass bs="):
        opt.step()


@pytest.mark.parametrize("bs", [0, -1, float("nan"), float("inf"), "480", True])
def test_bs_must_be_a_positive_number(bs):
    theta = parameter()
    opt = SophiaG([theta])
    with pytest.raises(InvalidArgument, match="bs: found"):
        opt.step(bs=bs)
    assert theta.tolist() == [1.0, -2.0]
    assert opt.steps == 0
    opt.step(bs=480)


def give_curvature(opt, theta):
    output = theta * 2.0
    opt.update_curvature(loss=output.square().sum() / 2, logits=output)


@pytest.mark.parametrize("call", [lambda opt: opt.update_hessian(), lambda opt: opt.step(bs=4)])
@pytest.mark.parametrize("stepped", [False, True])
def test_a_run_with_update_curvature_refuses_the_official_calls(call, stepped):
    theta = parameter()
    opt = SophiaG([theta], likelihood="gaussian")
    give_curvature(opt, theta)
    if stepped:
        opt.step()
    before = theta.detach().clone()
    with pytest.raises(InvalidState, match="this run uses update_curvature; keep to one of the two loops"):
        call(opt)
    assert torch.equal(theta, before)
    opt.step()  # the run goes on as it was


@pytest.mark.parametrize("begin", [lambda opt: opt.update_hessian(), lambda opt: opt.step(bs=4)])
def test_an_official_run_refuses_update_curvature(begin):
    theta = parameter()
    opt = SophiaG([theta], likelihood="gaussian")
    begin(opt)
    with pytest.raises(InvalidState, match=r"this run uses update_hessian\(\); keep to one of the two loops"):
        give_curvature(opt, theta)


@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
def test_update_hessian_never_folds_in_a_gradient_that_is_not_finite(nonfinite):
    theta = parameter()
    opt = SophiaG([theta], nonfinite=nonfinite)
    opt.update_hessian()
    before = opt.state[theta]["hessian"].clone()
    theta.grad[0] = float("nan")
    if nonfinite == "raise":
        with pytest.raises(NonFinite):
            opt.update_hessian()
    else:
        opt.update_hessian()
    assert torch.equal(opt.state[theta]["hessian"], before)
