"""Level 3, continued: what the papers prove about the rules, in float64, through the kernels as a backend runs them.

``invariance``  Apollo: ``(lr, sigma, eps) -> (c lr, c sigma, eps)`` leaves the trajectory as it is (arXiv:2009.13586,
                Theorem 1, in the terms of its authors' code)
``secant``      Apollo: ``d' B_new d = -(m_new - m_old)' d`` for each tensor, the weak secant equation
``calm``        Apollo in its three modes, forty steps of entries around 1 with a large eps, against the published
                formula in extended precision: what level 1's huge entries drown
``limits``      Sophia: ``lr * m / (rho * h)`` where nothing is clipped, ``lr * sign(m)`` where h is not positive
``reduction``   AdaHessian with the squared gradient for the curvature, at every step, is Adam
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from hessiod.backends.contract import Backend, Route
from hessiod.conformance.check import Check, Finding, identified
from hessiod.conformance.formulas import FORMULAS
from hessiod.core.rule import Kernel, Rule
from hessiod.core.rules import RULES

ULP = float(np.finfo(np.float64).eps)
STEPS, SIZE = 40, 50
Arrays = dict[str, np.ndarray]


def theorem_checks(backend: Backend) -> Iterator[Check]:
    """The theorems on each route of a backend that does not compile for every shape."""
    theorems: dict[tuple[str, str], Callable[..., Finding]] = {
        ("apollo", "invariance"): invariance,
        ("apollo", "secant"): secant,
        ("apollo-l2", "calm"): partial(calm, "apollo-l2"),
        ("apollo-decoupled", "calm"): partial(calm, "apollo-decoupled"),
        ("apollo-stable", "calm"): partial(calm, "apollo-stable"),
        ("sophia", "limits"): limits,
        ("adahessian", "reduction"): reduction,
    }
    for (rule, kind), theorem in theorems.items():
        for route in backend.routes:
            if not route.compiles:
                yield Check(
                    f"L3/{rule}/{backend.name}/{route.name}/{kind}",
                    **identified(backend, level="L3", rule=rule, dtype="float64"),
                    kinds=("theorem",),
                    run=partial(found, theorem, backend, route),
                    unsupported="" if "float64" in backend.dtypes else "the backend has no float64",
                    slow="" if route == backend.routes[0] else "L3: theorems on all routes but a backend's first",
                )


def found(theorem: Callable[..., Finding], backend: Backend, route: Route) -> Iterator[Finding]:
    """The one finding of a theorem."""
    yield theorem(partial(call, backend, route))


def call(backend: Backend, route: Route, kernel: Kernel, arrays: Mapping[str, np.ndarray], **values: float) -> Arrays:
    """Run a kernel on named arrays; the named results."""
    given = [backend.from_numpy(arrays[name].copy()) for name in kernel.operands]
    results = route.run(kernel.function, given, kernel.scalars_from(values))
    return dict(zip(kernel.results, map(backend.to_numpy, results), strict=True))


def begun(rule: Rule) -> Arrays:
    """A parameter and empty state."""
    start = np.random.default_rng(1).normal(size=SIZE)
    return {"param": start, **{slot: np.zeros(SIZE) for slot in rule.slots}}


def gradients() -> Iterator[np.ndarray]:
    """The same gradients for every run."""
    rng = np.random.default_rng(2)
    yield from (rng.normal(size=SIZE) for _ in range(STEPS))


def within(apart: float, budget: float, said: str) -> Finding:
    """A share of the norm, against a budget."""
    why = f"{said}: {budget:.1e} of the norm; found {apart:.1e}"
    return Finding("theorem", apart <= budget, apart / ULP, budget / ULP, why)


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """The norm of the difference over the norm."""
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def invariance(run: Callable[..., Arrays]) -> Finding:
    """Two runs of Apollo with everything that scales four times as large: a power of two, so that all is exact."""
    rule, ends = RULES["apollo-l2"], []
    for scale in (1.0, 4.0):
        values = rule.defaults | {"lr": 0.01 * scale, "sigma": 0.01 * scale, "warmup": 0.0, "weight_decay": 0.0}
        arrays = begun(rule)
        for step, grad in enumerate(gradients(), 1):
            arrays |= run(rule.step, arrays | {"grad": grad}, **values, step=step)
        ends.append(arrays["param"])
    return within(distance(ends[1], ends[0]), STEPS * 8 * ULP, "the same end, a few roundings a step")


def secant(run: Callable[..., Arrays]) -> Finding:
    """The equation at the last step, where the direction is long enough for eps not to count."""
    rule, values = RULES["apollo-l2"], RULES["apollo-l2"].defaults | {"warmup": 0.0, "eps": 1e-12}
    arrays, worst = begun(rule), 0.0
    for step, grad in enumerate(gradients(), 1):
        before = dict(arrays)
        arrays |= run(rule.step, arrays | {"grad": grad}, **values, step=step)
        if step > 1:
            d = before["exp_avg_grad"] / np.maximum(np.abs(before["approx_hessian"]), values["sigma"])
            left = float(np.sum(arrays["approx_hessian"] * d * d))
            right = -float(np.sum((arrays["exp_avg_grad"] - before["exp_avg_grad"]) * d))
            size = float(np.sum(np.abs(arrays["approx_hessian"]) * d * d))
            worst = max(worst, abs(left - right) / size)
    return within(worst, 1e-9, "the two sides, eps being 1e-12")


def calm(name: str, run: Callable[..., Arrays]) -> Finding:
    """A rule's kernel and its formula side by side, each going on from its own state."""
    rule = RULES[name]
    values = rule.defaults | {"lr": 0.01, "sigma": 0.05, "eps": 0.05, "warmup": 0.0, "weight_decay": 0.1}
    arrays, exact = begun(rule), {key: array.astype(np.longdouble) for key, array in begun(rule).items()}
    for step, grad in enumerate(gradients(), 1):
        arrays |= run(rule.step, arrays | {"grad": grad}, **values, step=step)
        wide = exact | {"grad": grad.astype(np.longdouble)}
        given = {key: value for key, value in (values | {"step": step}).items() if key in rule.step.hyperparameters}
        printed = FORMULAS[f"{name}.step"](*[wide[operand] for operand in rule.step.operands], **given)
        exact |= dict(zip(rule.step.results, printed, strict=True))
    apart = max(distance(arrays[key], exact[key].astype(np.float64)) for key in rule.step.results)
    return within(apart, 1e-11, "parameter and state after forty steps")


def limits(run: Callable[..., Arrays]) -> Finding:
    """Both ends of Sophia's clip, entry by entry."""
    rule = RULES["sophia"]
    values = {"lr": 0.1, "beta1": 0.0, "rho": 0.5, "eps": 1e-12, "weight_decay": 0.0}
    grad = np.random.default_rng(3).uniform(0.1, 1.0, SIZE)
    hessian = np.where(np.arange(SIZE) % 2 == 0, 10.0, -np.arange(SIZE) / SIZE)
    start = {"param": np.zeros(SIZE), "exp_avg": np.zeros(SIZE), "hessian": hessian, "grad": grad}
    moved = run(rule.step, start, **values)["param"]
    expected = np.where(hessian > 0, -0.1 * grad / (0.5 * np.abs(hessian) + (hessian <= 0)), -0.1 * np.sign(grad))
    return within(distance(moved, expected), 4 * ULP, "the step in closed form")


def reduction(run: Callable[..., Arrays]) -> Finding:
    """AdaHessian whose curvature estimate is the gradient beside Adam in its textbook form."""
    rule = RULES["adahessian"]
    values = {"lr": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0}
    assert rule.refresh is not None
    arrays = begun(rule)
    theta, m, v = arrays["param"].copy(), np.zeros(SIZE), np.zeros(SIZE)
    for step, grad in enumerate(gradients(), 1):
        arrays |= run(rule.refresh, arrays | {"estimate": grad}, **values, step=step, refreshes=step)
        arrays |= run(rule.step, arrays | {"grad": grad}, **values, step=step, refreshes=step)
        m, v = 0.9 * m + 0.1 * grad, 0.999 * v + 0.001 * grad**2
        theta = theta - 0.01 * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
    moved: Any = arrays["param"]
    return within(distance(moved, theta), STEPS * 8 * ULP, "Adam's end, a few roundings a step")
