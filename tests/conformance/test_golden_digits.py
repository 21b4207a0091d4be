"""The golden losses of the digits, worked out once more without a framework.

Derivatives by hand, Hessian-vector products as the complex step of the gradient, and the published formulas of
conformance/formulas.py in the place of the kernels; only probes and sampled targets are drawn by core/.
"""

import numpy as np
import pytest

from hessiod.backends.numpy import namespace as xp
from hessiod.backends.training.weights import initial_weights
from hessiod.conformance.formulas import FORMULAS
from hessiod.conformance.problems import DIGITS, golden
from hessiod.core.likelihood import categorical_residual
from hessiod.core.philox import rademacher_probes
from hessiod.core.rules import RULES

RULE = {
    "sophia-g": "sophia",
    "sophia-h": "sophia",
    "apollo": "apollo-l2",
    "apollow": "apollo-decoupled",
    "momentum": "sgd-momentum",
    "nesterov": "sgd-nesterov",
}
EVERY = {"sophia-g": 10, "sophia-h": 10, "adahessian": 1, "diagonal-newton": 1}


def forward(params, images):
    w1, b1, w2, b2 = params
    hidden = np.tanh(images @ w1.T + b1)
    return hidden, hidden @ w2.T + b2


def pulled_back(params, images, hidden, residual):
    """The gradient whose derivative with respect to the logits is ``residual``."""
    below = residual @ params[2] * (1 - hidden**2)
    return [below.T @ images, below.sum(0), residual.T @ hidden, residual.sum(0)]


def loss_and_gradient(params, images, labels):
    hidden, logits = forward(params, images)
    likelihoods = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    rows = np.arange(len(labels))
    loss = -np.log(likelihoods[rows, labels]).mean()
    residual = likelihoods.copy()
    residual[rows, labels] -= 1
    return loss, pulled_back(params, images, hidden, residual / len(labels))


def hutchinson(params, images, labels, step):
    probes = rademacher_probes(xp, params, seed=0, step=step)
    moved = [param + 1e-30j * probe for param, probe in zip(params, probes, strict=True)]
    products = [part.imag / 1e-30 for part in loss_and_gradient(moved, images, labels)[1]]
    return [probe * product for probe, product in zip(probes, products, strict=True)]


def gauss_newton(params, images, labels, step):
    hidden, logits = forward(params, images)
    residual = categorical_residual(xp, logits, 0, step, 0)
    totals = pulled_back(params, images, hidden, residual)
    return [FORMULAS["gauss-newton-bartlett.estimate"](total, count=len(labels))[0] for total in totals]


def applied(rule, which, state, numbers):
    """The state after the published formula in the place of one of a rule's kernels."""
    kernel, formula = getattr(rule, which), FORMULAS[f"{rule.name}.{which}"]
    wanted = {name: numbers[name] for name in kernel.hyperparameters}
    results = formula(*[state[name] for name in kernel.operands], **wanted)
    return state | {name: np.float64(array) for name, array in zip(kernel.results, results, strict=True)}


@pytest.mark.parametrize("optimizer", sorted(DIGITS.settings))
def test_a_run_without_a_framework_has_the_golden_losses(optimizer):
    rule = RULES[RULE.get(optimizer, optimizer)]
    config, data = DIGITS.config(optimizer), DIGITS.read()
    given = {name: value for name, value in config.options.items() if name in rule.hyperparameters}
    weights = [array.astype(np.float64) for array in initial_weights(config.model, config.seed).values()]
    states = [{"param": array} | {slot: np.zeros_like(array) for slot in rule.slots} for array in weights]
    losses = []
    for step in range(1, 51):
        params = [state["param"] for state in states]
        images, labels = data.batch(step - 1, seed=config.seed, rows=config.batch)
        loss, gradients = loss_and_gradient(params, images.astype(np.float64), labels)
        losses.append(loss)
        every = EVERY.get(optimizer, 1)
        numbers = rule.defaults | given | {"lr": config.peak * config.factor(step - 1)}
        counts = {"step": step, "refreshes": (step - 1) // every + 1}
        if rule.refresh is not None and (step - 1) % every == 0:
            estimate = gauss_newton if optimizer == "sophia-g" else hutchinson
            estimates = estimate(params, images.astype(np.float64), labels, step)
            pairs = zip(states, estimates, strict=True)
            states = [applied(rule, "refresh", state | {"estimate": e}, numbers | counts) for state, e in pairs]
        pairs = zip(states, gradients, strict=True)
        states = [applied(rule, "step", state | {"grad": gradient}, numbers | counts) for state, gradient in pairs]
    np.testing.assert_allclose(losses, golden()[f"digits.{optimizer}"], rtol=1e-9)
