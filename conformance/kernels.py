"""Level 1: every kernel, on every route of a backend, against the published formula and against the other backends.

Two rows for each kernel, route and dtype, and two more for inputs that a seed draws
(:mod:`hessiod.conformance.drawn`):

``formula``    the result lies where a faithful evaluation of the kernel may lie, and so does the exact result of the
               published formula (worked in extended precision). A kernel that is not the formula fails here.
``agreement``  the result equals the numpy backend's bit for bit, except where the route says that it may contract a
               product and a sum into one rounding, or flush denormals; then it lies where that may lead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache, partial

import numpy as np

from hessiod.backends.contract import STORED, Backend, Route
from hessiod.conformance.check import Check, Finding, identified
from hessiod.conformance.drawn import drawn, repeated
from hessiod.conformance.example import Example, Subject
from hessiod.conformance.formats import FORMATS, HALF, Format
from hessiod.conformance.inputs import LARGE, SHAPES, SMALL, hard_array
from hessiod.conformance.measure import Verdict, measure
from hessiod.core.curvature import gnb_kernel, gnb_scalars, hutchinson_kernel
from hessiod.core.rule import Kernel
from hessiod.core.rules import RULES
from hessiod.core.trace import trace

SETTINGS: tuple[Mapping[str, float], ...] = (
    {"lr": 1e-3, "weight_decay": 0.1, "step": 1, "refreshes": 1, "count": 3.0},
    {
        "lr": 0.3,
        "weight_decay": 0.01,
        "step": 200,
        "refreshes": 20,
        "dampening": 0.1,
        "hessian_power": 0.5,
        "count": 5e5,
    },
)


def no_scalars():
    """For kernels without scalars."""
    return {}


def subjects() -> list[Subject]:
    """Every kernel of every rule, and the estimators'."""
    found = []
    for rule in RULES.values():
        found.append(Subject(f"{rule.name}.step", rule.step, rule.defaults))
        if rule.refresh is not None:
            found.append(Subject(f"{rule.name}.refresh", rule.refresh, rule.defaults))
    hutchinson = Kernel(hutchinson_kernel, no_scalars, ("probe", "product"), ("estimate",))
    bartlett = Kernel(gnb_kernel, gnb_scalars, ("total",), ("estimate",))
    estimators = (("hutchinson.estimate", hutchinson), ("gauss-newton-bartlett.estimate", bartlett))
    return [*found, *(Subject(name, kernel, stepped=False) for name, kernel in estimators)]


@lru_cache(maxsize=64)
def fixed(subject: Subject, dtype: str, one_shape: bool = False) -> tuple[Example, ...]:
    """The adversarial arrays, in all shapes and settings, or in one shape."""
    first = [fixed_example(subject, FORMATS[dtype], SHAPES[0], number) for number in range(len(SETTINGS))]
    if one_shape:
        return tuple(first)
    others = [
        fixed_example(subject, FORMATS[dtype], shape, number) for shape in SHAPES[1:] for number in range(len(SETTINGS))
    ]
    (*_, small) = (example for example in others if example.arrays[0].shape == SMALL)
    strided = replace(small, where=f"{small.where}, every second column", strided=True, base=small)
    return (*first, *others, strided, *large(first[-1]))


def fixed_example(subject: Subject, format: Format, shape: tuple[int, ...], number: int) -> Example:
    """The adversarial arrays in a shape, with one of the settings."""
    arrays = tuple(
        hard_array(name, place, shape, format.container, format if name in STORED else None)
        for place, name in enumerate(subject.kernel.operands)
    )
    return Example(subject, format, arrays, {**subject.defaults, **SETTINGS[number]}, f"setting {number}")


def large(base: Example) -> list[Example]:
    """A call with many entries: those of another call over and over, if a kernel treats each by itself.

    Budgets of sums over so many entries are slow to work out, and the sums are in float32 for half precision too.
    """
    each = trace(base.subject.kernel).elementwise
    if not each and base.format.name != "float32":
        return []
    arrays = tuple(np.resize(array, LARGE) for array in base.arrays)
    return [replace(base, arrays=arrays, where=f"{base.where}, {LARGE[0]} entries", base=base if each else None)]


def explain(kind: str, route: Route, verdict: Verdict) -> str:
    """One line on what was allowed and where the worst entry is."""
    if kind == "formula":
        allowed = "half an ULP a rounding operation"
    elif route.contracts:
        allowed = "half an ULP a rounding operation: this route contracts"
    else:
        allowed = "bit for bit" if verdict.budget_ulp == 0 else "sums in any order, powers within 2 ULP"
        allowed += ", denormals flushed to zero" if route.flushes else ""
    return f"{allowed}; {verdict.where}"


KINDS = ("formula", "agreement")


def kernel_checks(backend: Backend, seed: int = 0) -> Iterator[Check]:
    """Level 1 of a backend; ``seed`` is that of the drawn inputs."""
    for subject in subjects():
        for route in backend.routes:
            for dtype in backend.dtypes:
                if dtype in HALF and not subject.stepped:
                    continue  # estimates of half-precision parameters are in float32
                fixed_run = partial(findings, subject, backend, route, dtype)
                drawn_run = partial(findings, subject, backend, route, dtype, seed=seed)
                for inputs, run in (("", fixed_run), ("/drawn", drawn_run)):
                    yield Check(
                        f"L1/{subject.name}/{backend.name}/{route.name}/{dtype}{inputs}",
                        **identified(backend, level="L1", rule=subject.rule, dtype=dtype),
                        kinds=KINDS,
                        run=run,
                        unsupported=no_half(route, dtype),
                        slow=slow(backend, route, dtype, drawn=bool(inputs)),
                    )


def no_half(route: Route, dtype: str) -> str:
    """Why a route has no half precision; empty if it has, or it is not asked for."""
    return "no step in half precision takes this route" if dtype in HALF and route.half is None else ""


def slow(backend: Backend, route: Route, dtype: str, drawn: bool) -> str:
    """What a quick run leaves out; empty if it runs the route in this dtype, with drawn inputs or with fixed ones."""
    if route.compiles:
        return "L1: routes that compile for seconds"
    if drawn and dtype != backend.dtypes[0]:
        return "L1: drawn inputs in all dtypes but a backend's first"
    if dtype == "float16":
        return "L1: float16, where bfloat16 stands for half precision"
    first = route == backend.routes[0] or dtype == backend.dtypes[0]
    return "" if first else "L1: further dtypes on all routes but a backend's first"


def findings(
    subject: Subject, backend: Backend, route: Route, dtype: str, seed: int | None = None
) -> Iterator[Finding]:
    """Both kinds of a kernel on a route, with the adversarial inputs or, given a seed, with drawn ones."""
    for kind, verdict in measure(backend, route, examples(subject, route, dtype, seed)).items():
        yield Finding(
            kind,
            verdict.ratio <= 1,
            verdict.worst_ulp,
            verdict.budget_ulp,
            explain(kind, route, verdict),
            worst=verdict.entry,
        )


def examples(subject: Subject, route: Route, dtype: str, seed: int | None) -> tuple[Example, ...]:
    """The calls of a check."""
    if seed is None:
        return fixed(subject, dtype, route.specializes)
    calls = drawn(subject, dtype, seed)
    return repeated(calls, SHAPES[0]) if route.specializes else calls
