"""Level 1: every kernel, on every route of a backend, against the published formula and against the other backends.

Two rows for each kernel, route and dtype:

``formula``    the result lies where a faithful evaluation of the kernel may lie, and so does the exact result of the
               published formula (worked in extended precision). A kernel that is not the formula fails here.
``agreement``  the result equals the numpy backend's bit for bit, except where the route says that it may contract a
               product and a sum into one rounding, or flush denormals; then it lies where that may lead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from hessiod.backends.contract import Backend, Route
from hessiod.backends.numpy import run as run_numpy
from hessiod.conformance.check import Check, Finding, identified
from hessiod.conformance.enclosure import Interval, enclose
from hessiod.conformance.formulas import FORMULAS
from hessiod.conformance.inputs import SHAPES, hard_array
from hessiod.core.curvature import gnb_kernel, gnb_scalars, hutchinson_kernel
from hessiod.core.rule import Kernel
from hessiod.core.rules import RULES

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


@dataclass(frozen=True)
class Subject:
    """A kernel under test with its hyperparameters' defaults."""

    name: str
    kernel: Kernel
    defaults: Mapping[str, float] = field(default_factory=dict)

    @property
    def rule(self) -> str:
        """The rule or estimator that the kernel belongs to."""
        return self.name.rpartition(".")[0]


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
    return [*found, Subject("hutchinson.estimate", hutchinson), Subject("gauss-newton-bartlett.estimate", bartlett)]


@dataclass(frozen=True)
class Verdict:
    """The entry of a result that comes nearest to its budget."""

    ratio: float
    worst_ulp: float
    budget_ulp: float
    where: str


def unit(dtype: np.dtype, *sizes: np.ndarray) -> np.ndarray:
    """The ULP at the largest of some magnitudes."""
    info = np.finfo(dtype)
    largest = np.maximum.reduce([np.abs(size.astype(np.longdouble)) for size in sizes])
    return np.spacing(np.clip(largest, info.smallest_normal, info.max / 2).astype(dtype)).astype(np.longdouble)


def judge(
    got: np.ndarray, expected: np.ndarray, enclosure: Interval, flushed: Interval, ulp: np.ndarray, where: str
) -> Verdict:
    """Measure a result against what was expected and what may be.

    ``flushed`` encloses also what flushing of denormals may lead to; entries that need it are counted, not measured.
    """
    if not got.size:
        return Verdict(0.0, 0.0, 0.0, where)
    with np.errstate(all="ignore"):
        value, exact = got.astype(np.longdouble), expected.astype(np.longdouble)
        error = np.where(value == exact, 0, np.abs(value - exact)) / ulp
        settled = (enclosure.low == exact) & (enclosure.high == exact)
        budget = np.where(settled, 0, np.maximum(enclosure.high - exact, exact - enclosure.low) / ulp)
        ratio = np.where(error == 0, 0, error / np.where(budget > 0, budget, np.inf))
        ratio = np.minimum(np.nan_to_num(ratio, nan=0.0), 1)
        faithful = enclosure.contains(got)
        ratio = np.where(faithful, ratio, np.where(flushed.contains(got), -1, np.inf))
    count = int(np.count_nonzero(ratio == -1))
    if count:
        where = f"{where}, {count} of {ratio.size} entries with flushed denormals"
    index = np.unravel_index(np.argmax(ratio), ratio.shape)
    place = f"{where}, entry {tuple(int(i) for i in index)}"
    if ratio[index] == -1:
        return Verdict(0.0, 0.0, 0.0, place)
    return Verdict(float(ratio[index]), float(error[index]), float(budget[index]), place)


def in_range(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Extended-precision values with those beyond the dtype's range as infinities."""
    limit = np.finfo(dtype).max
    return np.where(np.abs(values) > limit, np.copysign(np.inf, values), values)


def measure(subject: Subject, backend: Backend, route: Route, dtype: np.dtype) -> dict[str, Verdict]:
    """The worst verdict of both kinds over all shapes and settings."""
    worst: dict[str, Verdict] = {}
    for shape in SHAPES[:1] if route.compiles else SHAPES:
        arrays = [hard_array(name, place, shape, dtype) for place, name in enumerate(subject.kernel.operands)]
        for number, setting in enumerate(SETTINGS):
            values = {**subject.defaults, **setting}
            for kind, verdict in measure_one(subject, backend, route, arrays, values, f"setting {number}").items():
                if kind not in worst or verdict.ratio > worst[kind].ratio:
                    worst[kind] = verdict
    return worst


def measure_one(
    subject: Subject, backend: Backend, route: Route, arrays: list[np.ndarray], values: Mapping[str, float], where: str
) -> dict[str, Verdict]:
    """The verdicts of one call."""
    kernel, dtype = subject.kernel, arrays[0].dtype
    scalars = dict(kernel.scalars_from(values))
    native = [backend.from_numpy(array.copy()) for array in arrays]
    got = [backend.to_numpy(result) for result in route.run(kernel.function, native, scalars)]
    reference = [np.asarray(result) for result in run_numpy(kernel.function, arrays, scalars)]
    exact = {name: values[name] for name in kernel.hyperparameters}
    with np.errstate(all="ignore"):
        printed = FORMULAS[subject.name](*[array.astype(np.longdouble) for array in arrays], **exact)

    def enclosures(kind: str, **options: bool) -> Iterator[tuple[Interval, Interval]]:
        ways = [
            enclose(kernel.function, arrays, scalars, dtype=dtype, kind=kind, flushes=f, **options) for f in flushes
        ]
        return zip(ways[0], ways[-1], strict=True)

    flushes = (False, True) if route.flushes else (False,)
    may = enclosures("rounding", round_scalars=False)
    must = enclosures("rounding" if route.contracts else "agreement")
    verdicts: dict[str, Verdict] = {}
    for name, *result in zip(kernel.results, got, reference, printed, may, must, strict=True):
        value, numpy_value, formula_value, loose, tight = result
        if value.dtype != dtype or value.shape != arrays[0].shape:
            raise TypeError(f"{name}: found {value.dtype}{value.shape}, expected {dtype}{arrays[0].shape}")
        before = [array for array, operand in zip(arrays, kernel.operands, strict=True) if operand == name]
        ulp, place = unit(dtype, formula_value, *before), f"{where}, {name}"
        formula = judge(value, in_range(formula_value, dtype), loose[0], loose[1], ulp, place)
        if not loose[0].contains(in_range(formula_value, dtype)).all():
            formula = Verdict(np.inf, formula.worst_ulp, formula.budget_ulp, f"{place}: the kernel is not the formula")
        agreement = judge(value, numpy_value, tight[0], tight[1], ulp, place)
        for kind, verdict in (("formula", formula), ("agreement", agreement)):
            if kind not in verdicts or verdict.ratio > verdicts[kind].ratio:
                verdicts[kind] = verdict
    return verdicts


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


def kernel_checks(backend: Backend) -> Iterator[Check]:
    """Level 1 of a backend."""
    for subject in subjects():
        for route in backend.routes:
            for dtype in backend.dtypes:
                yield Check(
                    f"L1/{subject.name}/{backend.name}/{route.name}/{dtype}",
                    **identified(backend, level="L1", rule=subject.rule, dtype=dtype),
                    kinds=KINDS,
                    run=partial(findings, subject, backend, route, np.dtype(dtype)),
                    slow=slow(backend, route, dtype),
                )


def slow(backend: Backend, route: Route, dtype: str) -> str:
    """What a quick run leaves out; empty if it runs the route in this dtype."""
    if route.compiles:
        return "L1: routes that compile for seconds"
    first = route == backend.routes[0] or dtype == backend.dtypes[0]
    return "" if first else "L1: further dtypes on all routes but a backend's first"


def findings(subject: Subject, backend: Backend, route: Route, dtype: np.dtype) -> Iterator[Finding]:
    """Both kinds of a kernel on a route."""
    for kind, verdict in measure(subject, backend, route, dtype).items():
        yield Finding(kind, verdict.ratio <= 1, verdict.worst_ulp, verdict.budget_ulp, explain(kind, route, verdict))
