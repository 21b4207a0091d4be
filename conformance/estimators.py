"""Level 3: probes, sampled targets, curvature estimates and the Kronecker preconditioner.

``words``         random bits from the counter, bit for bit those of the numpy backend
``probe``         Rademacher signs, bit for bit; normal numbers, worked in float64, within an ULP of float32
``targets``       sampled classes and the loss's gradient at them, against numpy
``theorem``       a property that the estimate has by proof, whatever the framework
``dense``         the preconditioned gradient against the dense Kronecker matrix, built and solved in float64
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from hessiod.backends.contract import LINEAR_ALGEBRA, Backend
from hessiod.backends.numpy import namespace as numpy_xp
from hessiod.conformance.check import Check, Finding, identified, whole_kernels
from hessiod.conformance.derivatives import reason as no_autodiff
from hessiod.core import philox
from hessiod.core.curvature import gnb_kernel, gnb_scalars, hutchinson_kernel
from hessiod.core.kronecker import damping, factors, inverses, precondition
from hessiod.core.likelihood import RESIDUALS

SEED = 2**63 + 20230523
SHAPES = ((300,), (3, 5), (1,), ())
ULP = float(np.finfo(np.float32).eps)
SAMPLING = 2.0**-12
ROOT = 0.1**0.5
"""Of the Kronecker rows' damping."""
Measure = Callable[[Backend], Iterator[Finding]]


def estimator_checks(backend: Backend) -> Iterator[Check]:
    """Level 3 of a backend."""
    functions, matrices, derivatives = whole_kernels(backend), no_matrices(backend), no_autodiff(backend)
    rows: list[tuple[str, tuple[str, ...], Measure, str]] = [
        ("philox", ("words", "uniforms"), words, functions),
        *((name, ("probe",), partial(probes, name), functions) for name in philox.PROBES),
        *((name, ("targets",), partial(residuals, name), functions) for name in RESIDUALS),
        ("gauss-newton-bartlett", ("theorem",), gauss_newton, functions),
        ("hutchinson", ("theorem",), hutchinson, derivatives),
    ]
    if not functions:
        rows += [(f"kronecker.{name}", ("dense",), partial(kronecker, name), matrices) for name in inverses.INVERSES]
    for name, kinds, measure, unsupported in rows:
        yield Check(
            f"L3/{name}/{backend.name}",
            **identified(backend, level="L3", rule=name, dtype="float32"),
            kinds=kinds,
            run=partial(measure, backend),
            unsupported=unsupported,
        )


def no_matrices(backend: Backend) -> str:
    """Why a backend has no linear algebra; empty if it has."""
    has = all(hasattr(backend.namespace, name) for name in LINEAR_ALGEBRA)
    return whole_kernels(backend) or ("" if has else "the backend has no linear algebra")


def exactly(kind: str, found: list[np.ndarray], expected: list[np.ndarray]) -> Finding:
    """Arrays that must agree bit for bit."""
    pairs = zip(found, expected, strict=True)
    differ = [place for place, (one, other) in enumerate(pairs) if one.tobytes() != other.tobytes()]
    why = "bit for bit" + (f"; arrays {differ} of {len(found)} differ" if differ else "")
    return Finding(kind, not differ, None if differ else 0.0, 0.0, why)


def nearly(kind: str, found: list[np.ndarray], expected: list[np.ndarray], budget: float, why: str) -> Finding:
    """Arrays that must agree within a share of the largest entry's size, or of 1 if that is larger."""
    worst = 0.0
    for one, other in zip(found, expected, strict=True):
        if one.shape != other.shape:
            return Finding(kind, False, None, None, f"found the shape {one.shape}, expected {other.shape}")
        size = max(1.0, float(np.abs(other).max(initial=0.0)))
        worst = max(worst, float(np.abs(one.astype(np.float64) - other).max(initial=0.0)) / size)
    passed = worst <= budget and all(np.isfinite(array).all() for array in found)
    return Finding(kind, passed, worst / ULP, budget / ULP, f"{why}; worst {worst:.1e}")


def likes() -> list[np.ndarray]:
    """Arrays that give probes their shapes."""
    return [np.zeros(shape, np.float32) for shape in SHAPES]


def words(backend: Backend) -> Iterator[Finding]:
    """Random words and uniform numbers."""
    block = np.arange(9)
    stream = dict(seed=SEED, step=7, index=3, sample=2, stream=philox.TARGET)
    bits = backend.to_numpy(philox.words(backend.namespace, backend.from_numpy(block), **stream))
    yield exactly("words", [bits], [philox.words(numpy_xp, block, **stream)])
    found = [uniform_numbers(backend.namespace, backend.from_numpy(like)) for like in likes()]
    expected = [uniform_numbers(numpy_xp, like) for like in likes()]
    yield exactly("uniforms", [backend.to_numpy(array) for array in found], expected)


def uniform_numbers(xp: Any, like: Any) -> Any:
    """The uniform numbers of a step."""
    return philox.uniforms(xp, like, seed=SEED, step=7)


def probes(distribution: str, backend: Backend) -> Iterator[Finding]:
    """The probes of a step."""
    draw = philox.PROBES[distribution]
    found = draw(backend.namespace, [backend.from_numpy(like) for like in likes()], seed=SEED, step=7)
    arrays, expected = [backend.to_numpy(array) for array in found], draw(numpy_xp, likes(), seed=SEED, step=7)
    if distribution == "rademacher":
        yield exactly("probe", arrays, expected)
    else:
        yield nearly("probe", arrays, expected, ULP, "an ULP of float32")


def residuals(likelihood: str, backend: Backend) -> Iterator[Finding]:
    """The loss's gradient with respect to the output, at sampled targets."""
    logits = np.random.default_rng(9).normal(size=(64, 11)).astype(np.float32)
    residual = RESIDUALS[likelihood]
    found = backend.to_numpy(residual(backend.namespace, backend.from_numpy(logits), SEED, 7, 0))
    expected = residual(numpy_xp, logits, SEED, 7, 0)
    yield nearly(
        "targets", [found], [expected], SAMPLING, f"{SAMPLING:.1e}: the same targets, their functions' precision"
    )


def gauss_newton(backend: Backend) -> Iterator[Finding]:
    """``E[B g^2]`` is the diagonal of the Gauss-Newton matrix, here of a softmax regression, within sampling's error.

    20,000 draws; an entry's estimate is the square of a nearly normal number, so its mean is off by the root of two
    over the draws, 1 %, and the norm over 24 entries is off by about as much.
    """
    rng = np.random.default_rng(3)
    inputs, weights = rng.normal(size=(5, 6)), 0.5 * rng.normal(size=(4, 6))
    logits = inputs @ weights.T
    draws = 20_000
    repeated = np.broadcast_to(logits, (draws, *logits.shape)).astype(np.float32).copy()
    residual = backend.to_numpy(RESIDUALS["categorical"](backend.namespace, backend.from_numpy(repeated), SEED, 1, 0))
    totals = np.einsum("nbc,bi->nci", residual.astype(np.float64), inputs)
    scalars = gnb_scalars(count=float(len(inputs)))
    mean = np.mean(gnb_kernel(numpy_xp, totals, **scalars), axis=0)
    softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    exact = np.einsum("bc,bi->ci", softmax * (1 - softmax), inputs**2) / len(inputs)
    apart = float(np.linalg.norm(mean - exact) / np.linalg.norm(exact))
    yield Finding("theorem", apart <= 0.015, apart / ULP, 0.015 / ULP, f"1.5% over {draws} draws; found {apart:.2%}")


def quartic(xp: Any, weights: Any, data: Any) -> Any:
    """``sum c x^4``, whose Hessian is diagonal."""
    (x,), (c,) = weights, data
    return xp.sum(c * x * x * x * x)


def hutchinson(backend: Backend) -> Iterator[Finding]:
    """One Rademacher probe gives a diagonal Hessian exactly: here ``12 c x^2``."""
    rng = np.random.default_rng(4)
    x, c = (rng.normal(size=40).astype(np.float32) for _ in range(2))
    weights, data = [backend.from_numpy(x)], [backend.from_numpy(c)]
    vectors = philox.rademacher_probes(backend.namespace, weights, seed=SEED, step=1)
    autodiff = getattr(backend, "autodiff")  # noqa: B009 - not every backend has one
    products = autodiff.product(quartic, weights, data, vectors)
    found = backend.to_numpy(hutchinson_kernel(backend.namespace, vectors[0], products[0]))
    expected = 12.0 * c.astype(np.float64) * x.astype(np.float64) ** 2
    yield nearly("theorem", [found], [expected], 8 * ULP, "8 roundings of the largest entry")


def kronecker(method: str, backend: Backend) -> Iterator[Finding]:
    """``G^-1 W A^-1`` with pi-corrected damping, against one dense solve of ``(A + ..) (x) (G + ..)``."""
    inputs, outputs, grad = (backend.from_numpy(array.astype(np.float32)) for array in rows_and_gradient())
    yield dense_finding(
        backend.to_numpy(direction(backend.namespace, inputs, outputs, grad, ROOT, inverses.INVERSES[method]))
    )


def rows_and_gradient() -> list[np.ndarray]:
    """Rows of inputs and of output gradients, and a gradient of the weight between them."""
    rng = np.random.default_rng(5)
    rows = [rng.normal(size=(40, size)) * np.linspace(0.5, 2.0, size) for size in (7, 5)]
    return [*rows, rows[1].T @ rows[0] / 40]


def dense_finding(found: np.ndarray) -> Finding:
    """How far a preconditioned gradient is from the dense solve, worked in float64."""
    *rows, grad = rows_and_gradient()
    a, g = (factor.T @ factor / 40 for factor in rows)
    pi = np.sqrt(np.trace(a) / len(a) / (np.trace(g) / len(g)))
    dense = np.kron(a + pi * ROOT * np.eye(7), g + ROOT / pi * np.eye(5))
    expected = np.linalg.solve(dense, grad.T.ravel()).reshape(grad.T.shape).T
    apart = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    return Finding("dense", apart <= 1e-5, apart / ULP, 1e-5 / ULP, f"1e-05 of the norm; found {apart:.1e}")


def direction(xp: Any, inputs: Any, outputs: Any, grad: Any, root: float, inverse: Callable[..., Any]) -> Any:
    """The preconditioned gradient, from rows of inputs and of output gradients."""
    a = factors.input_factor(xp, factors.second_moment(xp, inputs), inverse_rows=1.0 / inputs.shape[0])
    g = factors.gradient_factor(xp, factors.second_moment(xp, outputs), scale=1.0 / outputs.shape[0])
    sizes = a.shape[-1], g.shape[-1]
    added = damping.factored(xp, xp.trace(a), xp.trace(g), *sizes, root=root)
    inverted = [[inverse(xp, factor, amount)] for factor, amount in zip((a, g), added, strict=True)]
    return precondition.precondition(xp, grad, *inverted)
