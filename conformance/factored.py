"""Level 3, continued: each function of the Kronecker methods, against its formula in float64.

The papers' formulas are written out here once more, over numpy's linear algebra. ``dense`` rows
(:mod:`hessiod.conformance.estimators`) hold the functions together; these say which of them is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from hessiod.backends.contract import Backend
from hessiod.conformance.check import Check, Finding, identified
from hessiod.conformance.estimators import ULP, no_matrices
from hessiod.core.kronecker import damping, factors, inverses, precondition, trust_region, unitwise

CORE = SimpleNamespace(
    damping=damping,
    factors=factors,
    inverses=inverses,
    precondition=precondition,
    trust_region=trust_region,
    unitwise=unitwise,
)
"""The modules whose functions are held; ``mutation`` puts changed ones in their places."""
BUDGET = 1e-5
Part = Callable[[Any, Any, Callable[..., Any]], tuple[Sequence[Any], Sequence[Any]]]
"""Given a namespace, :data:`CORE` and a way to native arrays: what its functions find, and what is right."""


def arrays(*shapes: tuple[int, ...], seed: int = 1) -> list[np.ndarray]:
    """Normal numbers that float32 holds, in float64."""
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32).astype(np.float64) for shape in shapes]


def moment(size: int, seed: int = 2, lead: tuple[int, ...] = ()) -> np.ndarray:
    """A positive definite matrix, or several."""
    (rows,) = arrays((*lead, 3 * size, size), seed=seed)
    return (np.swapaxes(rows, -1, -2) @ rows / (3 * size)).astype(np.float32).astype(np.float64)


def diagonal(*blocks: np.ndarray) -> np.ndarray:
    """A matrix with these blocks on its diagonal."""
    whole, at = np.zeros((sum(map(len, blocks)),) * 2), 0
    for block in blocks:
        whole[at : at + len(block), at : at + len(block)] = block
        at += len(block)
    return whole


def statistics(xp: Any, core: Any, native: Callable[..., Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    """``sum a a'`` of several groups, with the column of a bias, and the factors that it becomes."""
    rows, total = arrays((2, 9, 3))[0], moment(4)
    ones = np.concatenate([rows, np.ones((2, 9, 1))], -1)
    scale = core.factors.gradient_scale(targets=12.0, loss_gradient=0.25)
    found = [
        core.factors.second_moment(xp, core.factors.with_ones(xp, native(rows))),
        core.factors.input_factor(xp, native(total), inverse_rows=1.0 / 9.0),
        core.factors.gradient_factor(xp, native(total), **scale),
    ]
    return found, [np.einsum("gri,grj->gij", ones, ones), total / 9, total / (12 * 0.25**2)]


def averages(xp: Any, core: Any, native: Callable[..., Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    """The running average after the first, the second and many statistics."""
    old, new = moment(3), moment(3, seed=3)
    found, right = [], []
    for refreshes, keep in ((1, 0.0), (2, 0.5), (5, 0.8), (40, 0.95)):
        scalars = core.factors.average_scalars(decay=0.95, refreshes=refreshes)
        found.append(core.factors.average(xp, native(old), native(new), **scalars))
        right.append(keep * old + (1 - keep) * new)
    return found, right


def damped(xp: Any, core: Any, native: Callable[..., Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    """``pi sqrt(damping)`` and ``sqrt(damping) / pi``; without pi where a trace is 0."""
    trace_a, trace_g = np.array([8.5, 0.0, 3.0, 0.25]), np.array([0.02, 1.0, 0.0, 7.0])
    pi = np.where(trace_a * trace_g > 0, np.sqrt(trace_a / 7 / (np.where(trace_g > 0, trace_g, 1) / 5)), 1.0)
    given = [native(part.reshape(4, 1, 1)) for part in (trace_a, trace_g)]
    found = core.damping.factored(xp, *given, 7.0, 5.0, **core.damping.root_scalars(damping=0.09))
    return found, [(0.3 * pi).reshape(4, 1, 1), (0.3 / pi).reshape(4, 1, 1)]


def inverted(method: str, xp: Any, core: Any, native: Callable[..., Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    """The damped inverse of several factors of any size, and of the blocks of one."""
    several, one = moment(4, lead=(3,)) * np.array([1.0, 1e-2, 1e3]).reshape(3, 1, 1), moment(5)
    added = np.array([0.5, 0.02, 4.0]).reshape(3, 1, 1)
    inverse = core.inverses.INVERSES[method]
    blocks = core.inverses.block_inverses(xp, native(one), native(added[0]), inverse=inverse, block=3)
    found = [inverse(xp, native(several), native(added)), *blocks]
    parts = [one[:3, :3] + 0.5 * np.eye(3), one[3:, 3:] + 0.5 * np.eye(2)]
    right = [np.linalg.inv(several + added * np.eye(4)), *map(np.linalg.inv, parts)]
    if method == "eigen":  # a negative eigenvalue, from rounding as a rule, is taken for 0
        values, vectors = np.linalg.eigh(one - 0.5 * np.eye(5))
        found.append(inverse(xp, native(one - 0.5 * np.eye(5)), native(added[0])))
        right.append(vectors / (np.maximum(values, 0) + 0.5) @ vectors.T)
    return found, right


def natural(xp: Any, core: Any, native: Callable[..., Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    """``G^-1 grad A^-1`` with whole inverses and with blocks, and for an embedding."""
    a, g, (grad, table, counts) = [moment(3), moment(2, 4)], [moment(2, 5), moment(2, 6)], arrays((4, 5), (6, 4), (6,))
    whole_a, whole_g = diagonal(*a), diagonal(*g)
    lists = [[native(block) for block in part] for part in (a, g)]
    found = [
        core.precondition.precondition(xp, native(grad), *lists),
        core.precondition.precondition(xp, native(grad), [native(whole_a)], [native(whole_g)]),
        core.precondition.precondition_embedding(xp, native(table), native(counts), lists[1]),
        core.inverses.diagonal_inverse(xp, native(counts * counts), native(np.array(0.5))),
    ]
    once = whole_g @ grad @ whole_a
    return found, [once, once, counts[:, None] * (table @ whole_g), 1 / (counts * counts + 0.5)]


def promised(xp: Any, core: Any, native: Callable[..., Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    """``G V A``, the quadratic model and the trust region's factor, on both sides of its bound."""
    a, g, (way, table, counts) = moment(5), moment(4, 3), arrays((4, 5), (6, 4), (6,))
    change = np.array([1e-6, 4e-2, 0.0])
    found = [
        core.precondition.fisher_product(xp, native(way), native(a), native(g)),
        core.precondition.fisher_product_embedding(xp, native(table), native(counts), native(g)),
        core.precondition.quadratic_model(xp, *map(native, arrays((3,), (3,), (3,))), damping=0.3),
        core.trust_region.inner_product(xp, native(way), native(way + 1)),
        core.trust_region.kl_scale(xp, native(change), clip=1e-2),
    ]
    slope, bent, length = arrays((3,), (3,), (3,))
    right = [g @ way @ a, counts[:, None] * (table @ g), slope + bent / 2 + 0.15 * length]
    return found, [*right, np.sum(way * (way + 1)), np.array([1.0, 0.5, 1.0])]


def units(xp: Any, core: Any, native: Callable[..., Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    """Scale and shift by the dense solve of each channel's 2 x 2 block, one of them singular but for the damping."""
    scales, shifts, grad = arrays((7, 4), (7, 4), (2, 4))
    shifts[:, 3] = scales[:, 3]
    sums = core.unitwise.unit_sums(xp, native(scales), native(shifts))
    gg, gb, bb = (
        (one * other).sum(0, keepdims=True) for one, other in ((scales,) * 2, (scales, shifts), (shifts,) * 2)
    )
    given = [native(part) for part in (grad[:1], grad[1:], gg, gb, bb)]
    found = core.unitwise.precondition_unit(xp, *given, damping=0.5)
    blocks = np.array([[gg[0], gb[0]], [gb[0], bb[0]]]).transpose(2, 0, 1) + 0.5 * np.eye(2)
    solved = np.linalg.solve(blocks, grad.T[..., None])[..., 0].T
    alone = core.unitwise.precondition_scale(xp, given[0], given[2], damping=0.5)
    return [*sums, *found, alone], [gg, gb, bb, solved[:1], solved[1:], grad[:1] / (gg + 0.5)]


def rounded_unit(xp: Any, core: Any, native: Callable[..., Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    """A channel whose ``gb`` came out larger than the root of ``gg bb``: the determinant is that of equal ones."""
    one, damping = np.ones((1, 1)), 2.0**-12
    over = one + 2.0**-20
    given = [native(part) for part in (2 * one, 0 * one, one, over, one)]
    determinant = damping * (2 + damping)
    right = [2 * (1 + damping) * one / determinant, -2 * over / determinant]
    return core.unitwise.precondition_unit(xp, *given, damping=damping), right


PARTS: Mapping[str, Part] = {
    "statistics": statistics,
    "averages": averages,
    "damping": damped,
    **{f"{method}-blocks": partial(inverted, method) for method in inverses.INVERSES},
    "natural-gradient": natural,
    "model-and-trust-region": promised,
    "unit-wise": units,
    "unit-wise-rounded": rounded_unit,
}


def factored_checks(backend: Backend) -> Iterator[Check]:
    """Level 3's rows of the Kronecker functions, for a backend that has functions."""
    if backend.namespace is None:
        return
    for name, part in PARTS.items():
        yield Check(
            f"L3/kronecker.{name}/{backend.name}",
            **identified(backend, level="L3", rule=f"kronecker.{name}", dtype="float32"),
            kinds=("formula",),
            run=partial(measured, part, backend),
            unsupported=no_matrices(backend),
            slow="L3: each Kronecker function by itself",
        )


def measured(part: Part, backend: Backend, core: Any = CORE) -> Iterator[Finding]:
    """The worst of a part's results."""
    found, right = part(backend.namespace, core, lambda array: backend.from_numpy(np.asarray(array, np.float32)))
    results = [np.asarray(backend.to_numpy(one)) for one in found]
    shapes = [(one.shape, np.shape(other)) for one, other in zip(results, right, strict=True)]
    if any(one != other for one, other in shapes):
        yield Finding("formula", False, None, None, f"found shapes and expected ones: {shapes}")
        return
    errors = [distance(one.astype(np.float64), np.asarray(other)) for one, other in zip(results, right, strict=True)]
    worst = int(np.argmax(errors))
    why = f"{BUDGET:g} of the norm; worst result {worst} of {len(errors)}: {errors[worst]:.1e}"
    yield Finding("formula", errors[worst] <= BUDGET, errors[worst] / ULP, BUDGET / ULP, why)


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """The worst matrix's norm of the difference over the norm; infinite for what is not finite."""
    axes = (-2, -1) if one.ndim > 2 else None
    apart = np.linalg.norm(one - other, axis=axes) if axes else np.linalg.norm(np.ravel(one - other))
    size = np.linalg.norm(other, axis=axes) if axes else np.linalg.norm(np.ravel(other))
    return float(np.max(np.where(np.isfinite(apart), apart / size, np.inf)))
