"""The golden losses of the digits, worked out once more without a framework.

Derivatives by hand, Hessian-vector products as the complex step of the gradient, and the published formulas of
conformance/formulas.py in the place of the kernels; only probes and sampled targets are drawn by core/. Methods with
Kronecker factors are written out below from their papers: what is refreshed when, and linear systems that are solved.
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
KRONECKER = ("kfac", "spngd", "thor")
EVERY = {"sophia-g": 10, "sophia-h": 10, "adahessian": 1, "diagonal-newton": 1}


def forward(params, images):
    w1, b1, w2, b2 = params
    hidden = np.tanh(images @ w1.T + b1)
    return hidden, hidden @ w2.T + b2


def pulled_back(params, images, hidden, residual):
    """The gradient whose derivative with respect to the logits is ``residual``."""
    below = residual @ params[2] * (1 - hidden**2)
    return [below.T @ images, below.sum(0), residual.T @ hidden, residual.sum(0)]


def likelihoods_of(logits):
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def loss_and_gradient(params, images, labels):
    hidden, logits = forward(params, images)
    likelihoods = likelihoods_of(logits)
    loss = -np.log(likelihoods[np.arange(len(labels)), labels]).mean()
    return loss, pulled_back(params, images, hidden, (likelihoods - np.eye(10)[labels]) / len(labels))


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


@pytest.mark.parametrize("optimizer", sorted(set(DIGITS.settings) - set(KRONECKER)))
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


# Kronecker factors


def factors(params, images, residual):
    """``A`` and ``G`` of both layers, from the gradients of each target's own loss with respect to its logits."""
    hidden, _ = forward(params, images)
    below = residual @ params[2] * (1 - hidden**2)
    inputs = [np.c_[rows, np.ones(len(rows))] for rows in (images, hidden)]
    return [[rows.T @ rows / len(rows) for rows in pair] for pair in zip(inputs, (below, residual), strict=True)]


def natural(gradient, a, g, damping, block=None):
    """``(G + sqrt(damping) / pi I)^-1 gradient (A + pi sqrt(damping) I)^-1``, in diagonal blocks."""
    pi = np.sqrt((np.trace(a) / len(a)) / (np.trace(g) / len(g)))
    damped_a = cut(a, block) + pi * damping**0.5 * np.eye(len(a))
    damped_g = cut(g, block) + damping**0.5 / pi * np.eye(len(g))
    return np.linalg.solve(damped_a, np.linalg.solve(damped_g, gradient).T).T


def cut(matrix, block):
    """The matrix without what lies between its diagonal blocks."""
    places = np.arange(len(matrix)) // (block or len(matrix))
    return np.where(places[:, None] == places, matrix, 0.0)


class KFAC:
    """Martens and Grosse, arXiv:1503.05671: averages of sampled statistics, at fixed intervals."""

    def __init__(self, options):
        self.options, self.average, self.used, self.count = options, None, None, 0

    def refreshed(self, step, params, images, labels):
        refreshed = (step - 1) % self.options["factor_every"] == 0
        if refreshed:
            self.count += 1
            keep = min(1 - 1 / self.count, 0.95)
            found = factors(params, images, categorical_residual(xp, forward(params, images)[1], 0, step, 0))
            before = found if self.average is None else self.average
            self.average = [
                [keep * old + (1 - keep) * new for old, new in zip(*layer, strict=True)]
                for layer in zip(before, found, strict=True)
            ]
        young = refreshed and self.count <= 2  # not held on to for a whole interval
        if young or (step - 1) % self.options["inverse_every"] == 0:
            self.used = self.average
        return self.used


class SPNGD:
    """Osawa et al., arXiv:2002.06015, section 4.3: each statistic at an interval of its own."""

    def __init__(self, options):
        self.seen = [[[] for _ in range(2)] for _ in range(2)]
        self.intervals = [[[1, 1] for _ in range(2)] for _ in range(2)]
        self.due = [[1, 1], [1, 1]]

    def refreshed(self, step, params, images, labels):
        found = factors(params, images, residual_of(params, images, labels))
        for layer, kind in ((layer, kind) for layer in range(2) for kind in range(2)):
            if step >= self.due[layer][kind]:
                seen, (before, last) = self.seen[layer][kind], self.intervals[layer][kind]
                new = found[layer][kind]
                near = [np.linalg.norm(new - old) < 0.1 * np.linalg.norm(old) for old in seen[:-3:-1]]
                near += [False] * (2 - len(near))
                length = max(1, last // 2) if not near[0] else last + before if near[1] else last
                seen.append(new)
                self.intervals[layer][kind], self.due[layer][kind] = [last, length], step + length
        return [[kinds[-1] for kinds in layer] for layer in self.seen]


class THOR:
    """Chen et al., AAAI 2021, equation 9: layers are refreshed, kept or frozen by how much their trace moved."""

    def __init__(self, options):
        self.every, self.damping = options["factor_every"], options["damping"]
        self.used, self.traces, self.due, self.interval = [None] * 2, [None] * 2, [1, 1], [0, 0]

    def refreshed(self, step, params, images, labels):
        found = factors(params, images, residual_of(params, images, labels))
        for layer, (a, g) in enumerate(found):
            if step < self.due[layer]:
                continue
            trace = np.trace(a) * np.trace(g) + self.damping * len(a) * len(g)
            earlier = self.traces[layer]
            moved = np.inf if earlier is None else abs(trace - earlier) / earlier
            if moved > 0.01:
                self.used[layer], self.traces[layer], self.interval[layer] = (a, g), trace, self.every
            else:
                self.interval[layer] = np.inf if moved < 0.001 else max(2 * self.interval[layer], self.every)
            self.due[layer] = step + self.interval[layer]
        return self.used


def residual_of(params, images, labels):
    """The gradient of each target's own loss with respect to its logits."""
    return likelihoods_of(forward(params, images)[1]) - np.eye(10)[labels]


@pytest.mark.parametrize("optimizer", KRONECKER)
def test_a_run_of_a_kronecker_method_has_the_golden_losses(optimizer):
    config, data = DIGITS.config(optimizer), DIGITS.read()
    policy = {"kfac": KFAC, "spngd": SPNGD, "thor": THOR}[optimizer](config.options)
    params = [array.astype(np.float64) for array in initial_weights(config.model, config.seed).values()]
    moves, losses = [0.0, 0.0], []
    for step in range(1, 51):
        images, labels = data.batch(step - 1, seed=config.seed, rows=config.batch)
        images = images.astype(np.float64)
        loss, grads = loss_and_gradient(params, images, labels)
        losses.append(loss)
        lr, layers = config.peak * config.factor(step - 1), [np.c_[grads[0], grads[1]], np.c_[grads[2], grads[3]]]
        used = policy.refreshed(step, params, images, labels)
        options = config.options
        natural_ones = [
            natural(grad, *pair, options["damping"], options.get("block_size"))
            for grad, pair in zip(layers, used, strict=True)
        ]
        change = sum((one * grad).sum() for one, grad in zip(natural_ones, layers, strict=True))
        scale = min(1.0, np.sqrt(1e-3 / (lr**2 * change)))
        for layer, direction in enumerate(natural_ones):
            if optimizer == "spngd":  # momentum as a velocity
                moves[layer] = 0.9 * moves[layer] - lr * scale * direction
                step_taken = moves[layer]
            else:
                moves[layer] = 0.9 * moves[layer] + scale * direction
                step_taken = -lr * moves[layer]
            params[2 * layer] = params[2 * layer] + step_taken[:, :-1]
            params[2 * layer + 1] = params[2 * layer + 1] + step_taken[:, -1]
    np.testing.assert_allclose(losses, golden()[f"digits.{optimizer}"], rtol=1e-9)
