"""50 steps beside MindSpore's own optimizers: equal where the algorithms are, and where not, who follows the paper."""

from __future__ import annotations

import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn

from hessiod.mindspore import SGD, AdamW

STEPS, LR = 50, 0.05
generator = np.random.default_rng(0)
NOISE = generator.normal(size=(STEPS, 6)).astype(np.float32)
START = generator.normal(size=6).astype(np.float32)


def run(make):
    """A noisy quadratic: the gradient depends on the parameter, so that a difference feeds on itself."""
    param = Parameter(Tensor(START.copy()), name="weight")
    optimizer = make([param])
    for noise in NOISE:
        optimizer((Tensor(noise + np.float32(0.1) * param.asnumpy()),))
    return param.asnumpy().astype(np.float64)


def in_float64(update):
    """The same run in float64; ``update`` takes theta, the gradient and the step, from 1."""
    theta = START.astype(np.float64)
    for step, noise in enumerate(NOISE, start=1):
        theta = update(theta, noise + 0.1 * theta, step)
    return theta


def error(found, expected):
    assert np.linalg.norm(expected - START) > 0.1
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


SAME = {
    "SGD": (dict(weight_decay=0.1), nn.SGD),
    "SGD, momentum": (dict(momentum=0.9, weight_decay=0.1), nn.SGD),
    "SGD, dampening": (dict(momentum=0.9, dampening=0.3), nn.SGD),
    "SGD, Nesterov": (dict(momentum=0.9, nesterov=True, weight_decay=0.1), nn.SGD),
    "Momentum": (dict(momentum=0.9, weight_decay=0.1), nn.Momentum),
}


@pytest.mark.parametrize("case", SAME)
def test_sgd_is_the_stock_one(case):
    options, stock = SAME[case]
    ours = run(lambda params: SGD(params, learning_rate=LR, **options))
    assert error(ours, run(lambda params: stock(params, learning_rate=LR, **options))) < 1e-6


def test_nn_momentum_on_the_cpu_ignores_use_nesterov():
    """Sutskever et al. (ICML 2013) step by ``g + momentum * b``; MindSpore 2.10's kernel there steps by ``b``."""

    def nesterov():
        buffer = np.zeros(6)

        def update(theta, g, step):
            buffer[:] = 0.9 * buffer + g
            return theta - LR * (g + 0.9 * buffer)

        return update

    ours = run(lambda params: SGD(params, learning_rate=LR, momentum=0.9, nesterov=True))
    assert error(ours, in_float64(nesterov())) < 1e-6
    stock = run(lambda params: nn.Momentum(params, LR, 0.9, use_nesterov=True))
    assert error(stock, run(lambda params: nn.Momentum(params, LR, 0.9))) == 0
    assert error(stock, ours) > 0.01


# Betas whose 1 - beta is exact in float32, in which the stock optimizers work it out: 1 - 0.999 is off by 1.3e-5 there.
BETAS = dict(beta1=0.875, beta2=1 - 2.0**-10)


def test_adam_is_the_stock_one_but_for_the_place_of_eps():
    """nn.Adam adds eps before the correction, as the end of section 2 of arXiv:1412.6980 does; without eps equal."""
    ours = run(lambda params: AdamW(params, learning_rate=LR, weight_decay=0.0, eps=1e-20, **BETAS))
    assert error(ours, run(lambda params: nn.Adam(params, LR, eps=1e-20, **BETAS))) < 1e-6
    large = run(lambda params: AdamW(params, learning_rate=LR, weight_decay=0.0, eps=0.1, **BETAS))
    assert error(large, run(lambda params: nn.Adam(params, LR, eps=0.1, **BETAS))) > 0.01
    assert error(large, in_float64(adamw(weight_decay=0.0, eps=0.1))) < 1e-6


def adamw(weight_decay, eps, corrected=True):
    """Loshchilov and Hutter, Algorithm 2, lines 6 to 12; lines 9 and 10 are the bias corrections."""
    m, v = np.zeros(6), np.zeros(6)
    beta1, beta2 = BETAS.values()

    def update(theta, g, step):
        m[:] = beta1 * m + (1 - beta1) * g
        v[:] = beta2 * v + (1 - beta2) * g * g
        first, second = (1 - beta1**step, 1 - beta2**step) if corrected else (1, 1)
        return theta - LR * (m / first / (np.sqrt(v / second) + eps) + weight_decay * theta)

    return update


def test_adam_weight_decay_leaves_out_the_bias_corrections():
    """Ours has them, as the paper; with learning rates that undo them the two agree."""
    given = dict(weight_decay=0.1, eps=1e-6)
    ours = run(lambda params: AdamW(params, learning_rate=LR, **given, **BETAS))
    stock = run(lambda params: nn.AdamWeightDecay(params, LR, **given, **BETAS))
    assert error(ours, in_float64(adamw(**given))) < 1e-6
    assert error(stock, in_float64(adamw(**given, corrected=False))) < 1e-6
    assert error(stock, ours) > 0.1
    steps = np.arange(1, STEPS + 1)
    rates = LR * (1 - BETAS["beta1"] ** steps) / np.sqrt(1 - BETAS["beta2"] ** steps)
    undone = dict(weight_decay=0.0, eps=1e-20)
    ours = run(lambda params: AdamW(params, learning_rate=rates.tolist(), **undone, **BETAS))
    assert error(ours, run(lambda params: nn.AdamWeightDecay(params, LR, **undone, **BETAS))) < 1e-6


def test_stock_optimizers_do_not_decay_parameters_called_beta_or_gamma():
    """Ours decay what they are given; a group with weight_decay 0 leaves some out."""
    weight = {"name": "gamma", "requires_grad": True}

    def decayed(make):
        param = Parameter(Tensor(START.copy()), **weight)
        make([param])((Tensor(np.zeros(6, np.float32)),))
        return bool((param.asnumpy() != START).all())

    assert decayed(lambda params: AdamW(params, learning_rate=LR, weight_decay=0.1))
    assert not decayed(lambda params: AdamW([{"params": params, "weight_decay": 0.0}], learning_rate=LR))
    assert not decayed(lambda params: nn.Momentum(params, LR, 0.9, weight_decay=0.1))
