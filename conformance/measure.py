"""A kernel's results on a route, measured against the published formula and against the numpy backend.

What a call may give depends on the kernel and its inputs and not on who is tested: it is worked out once, and kept for
the next routes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np

from hessiod.backends.contract import STORED, Backend, Route
from hessiod.backends.numpy import run as run_numpy
from hessiod.conformance.enclosure import Interval, enclose
from hessiod.conformance.entry import entry
from hessiod.conformance.formats import FORMATS, Format
from hessiod.conformance.formulas import FORMULAS
from hessiod.core.rule import Kernel


@dataclass(frozen=True)
class Subject:
    """A kernel under test with its hyperparameters' defaults; ``stepped`` if optimizers call it in their steps."""

    name: str
    kernel: Kernel
    defaults: Mapping[str, float] = field(default_factory=dict, compare=False)
    stepped: bool = True

    @property
    def rule(self) -> str:
        """The rule or estimator that the kernel belongs to."""
        return self.name.rpartition(".")[0]


@dataclass(frozen=True, eq=False)
class Example:
    """A call of a kernel: arrays for its operands, hyperparameters, and where they come from, in words.

    ``format`` is that of the parameter; the arrays have its container's dtype. ``strided`` arrays are to be taken from
    wider ones, with steps between their entries. The entries of a call with a ``base`` are that call's, over and over.
    """

    subject: Subject
    format: Format
    arrays: tuple[np.ndarray, ...]
    values: Mapping[str, float]
    where: str
    strided: bool = False
    base: Example | None = None

    @property
    def operands(self) -> dict[str, np.ndarray]:
        """The arrays by name."""
        return dict(zip(self.subject.kernel.operands, self.arrays, strict=True))

    @property
    def scalars(self) -> dict[str, float]:
        """The kernel's scalars."""
        return dict(self.subject.kernel.scalars_from(self.values))

    @property
    def hyperparameters(self) -> dict[str, float]:
        """Those that the kernel's scalars are made of."""
        return {name: self.values[name] for name in self.subject.kernel.hyperparameters}


@dataclass(frozen=True)
class Expected:
    """What one result of a call should be and may be.

    ``formula`` is the published formula's in extended precision, ``numpy`` the numpy backend's. ``may`` encloses every
    faithful evaluation, ``must`` those that a route of its kind may give; the second of each, denormals flushed.
    """

    formula: np.ndarray
    numpy: np.ndarray
    may: tuple[Interval, Interval]
    must: tuple[Interval, Interval]
    ulp: np.ndarray
    is_formula: bool

    def over(self, shape: tuple[int, ...]) -> Expected:
        """The same entries over and over in another shape."""

        def resized(interval: Interval) -> Interval:
            return Interval(np.resize(interval.low, shape), np.resize(interval.high, shape), interval.widening)

        (may, may_flushed), (must, must_flushed) = self.may, self.must
        return replace(
            self,
            formula=np.resize(self.formula, shape),
            numpy=np.resize(self.numpy, shape),
            may=(resized(may), resized(may_flushed)),
            must=(resized(must), resized(must_flushed)),
            ulp=np.resize(self.ulp, shape),
        )


@dataclass(frozen=True)
class Verdict:
    """The entry of a result that comes nearest to its budget."""

    ratio: float
    worst_ulp: float
    budget_ulp: float
    where: str
    entry: dict[str, Any] | None = None


def stored_in(kernel: Kernel, format: Format) -> Any:
    """The kernel's function on intervals, with the arrays that users give read from and written to half precision."""

    def function(xp: Any, *arrays: Any, **scalars: Any) -> tuple[Any, ...]:
        given = zip(kernel.operands, arrays, strict=True)
        found = kernel.function(xp, *[x.loaded(format) if name in STORED else x for name, x in given], **scalars)
        results = found if isinstance(found, tuple) else (found,)
        return tuple(
            result.stored(format) if name in STORED else result
            for name, result in zip(kernel.results, results, strict=True)
        )

    return function


@lru_cache(maxsize=96)
def expected(example: Example, flushes: bool, contracts: bool) -> tuple[Expected, ...]:
    """What each result of a call should be; of the base's, if it has one."""
    if example.base is not None:
        return expected(example.base, flushes, contracts)
    kernel, format = example.subject.kernel, example.format
    arrays, scalars, dtype = list(example.arrays), example.scalars, format.container
    function = stored_in(kernel, format) if format.half else kernel.function
    with np.errstate(all="ignore"):
        wide = [array.astype(np.longdouble) for array in arrays]
        printed = FORMULAS[example.subject.name](*wide, **example.hyperparameters)
    reference = [np.asarray(result) for result in run_numpy(kernel.function, arrays, scalars)]

    def ways(kind: str, **options: bool) -> Iterable[tuple[Interval, Interval]]:
        flushed = dict.fromkeys((False, flushes))
        found = [enclose(function, arrays, scalars, dtype=dtype, kind=kind, flushes=f, **options) for f in flushed]
        return zip(found[0], found[-1], strict=True)

    may, must = ways("rounding", round_scalars=False), ways("rounding" if contracts else "agreement")
    made = []
    for name, formula, result, loose, tight in zip(kernel.results, printed, reference, may, must, strict=True):
        kept = format if name in STORED else FORMATS[dtype.name]
        exact, plain = in_range(formula, kept), kept.rounded(result).astype(dtype) if kept.half else result
        before = [np.abs(array) for operand, array in example.operands.items() if operand == name]
        ulp = kept.ulp(np.maximum.reduce([np.abs(formula), *before]))
        made.append(Expected(exact, plain, loose, tight, ulp, bool(loose[0].contains(exact).all())))
    return tuple(made)


def in_range(values: np.ndarray, format: Format) -> np.ndarray:
    """Extended-precision values with those beyond the format's range as infinities."""
    return np.where(np.abs(values) > format.max, np.copysign(np.inf, values), values)


def measure(backend: Backend, route: Route, examples: Iterable[Example]) -> dict[str, Verdict]:
    """The worst verdict of both kinds over some calls."""
    worst: dict[str, Verdict] = {}
    for example in examples:
        for kind, verdict in measure_one(backend, route, example).items():
            if kind not in worst or verdict.ratio > worst[kind].ratio:
                worst[kind] = verdict
    return worst


def measure_one(backend: Backend, route: Route, example: Example) -> dict[str, Verdict]:
    """The verdicts of one call."""
    kernel = example.subject.kernel
    got = called(backend, route, example)
    verdicts: dict[str, Verdict] = {}
    for name, value, known in zip(kernel.results, got, expected(example, route.flushes, route.contracts), strict=True):
        check_form(name, value, example)
        if example.base is not None:
            if value.tobytes() == np.resize(known.numpy, value.shape).tobytes():
                continue  # then both figures are the base's
            known = known.over(value.shape)
        formula = judge(name, value, known.formula, known.may, known.ulp, example)
        if not known.is_formula:
            formula = replace(formula, ratio=np.inf, where=f"{formula.where}: the kernel is not the formula")
        agreement = judge(name, value, known.numpy, known.must, known.ulp, example)
        for kind, verdict in (("formula", formula), ("agreement", agreement)):
            if kind not in verdicts or verdict.ratio > verdicts[kind].ratio:
                verdicts[kind] = verdict
    return verdicts


def called(backend: Backend, route: Route, example: Example) -> list[np.ndarray]:
    """The results of a route, as numpy sees them."""
    kernel = example.subject.kernel
    native = [placed(backend, array, example.strided) for array in example.arrays]
    if not example.format.half:
        found = route.run(kernel.function, native, example.scalars)
    else:
        assert route.half is not None  # or the check is unsupported
        given = dict(zip(kernel.operands, native, strict=True))
        found = route.half(kernel, given, example.values, example.format.name)
    return [backend.to_numpy(result) for result in found]


def placed(backend: Backend, array: np.ndarray, strided: bool) -> Any:
    """A native array; a strided one has its entries in every second column of another one."""
    if not strided:
        return backend.from_numpy(array.copy())
    wide = np.full((*array.shape[:-1], 2 * array.shape[-1]), np.nan, array.dtype)
    wide[..., ::2] = array
    return backend.from_numpy(wide)[..., ::2]


def check_form(name: str, value: np.ndarray, example: Example) -> None:
    """Refuse a result of another dtype or shape, or a parameter that its dtype does not hold."""
    dtype, shape = example.format.container, example.arrays[0].shape
    if value.dtype != dtype or value.shape != shape:
        raise TypeError(f"{name}: found {value.dtype}{value.shape}, expected {dtype}{shape}")
    kept = example.format if name in STORED else FORMATS[dtype.name]
    if kept.half and not np.array_equal(kept.rounded(value), value, equal_nan=True):
        raise TypeError(f"{name}: found numbers that {example.format.name} does not hold, expected it to be rounded")


def judge(
    name: str, got: np.ndarray, exact: np.ndarray, bounds: tuple[Interval, Interval], ulp: np.ndarray, example: Example
) -> Verdict:
    """Measure a result against what was expected and what may be.

    The second of ``bounds`` encloses also what flushing of denormals may lead to; entries that need it are counted, not
    measured.
    """
    enclosure, flushed, where = *bounds, f"{example.where}, {name}"
    if not got.size:
        return Verdict(0.0, 0.0, 0.0, where)
    with np.errstate(all="ignore"):
        value, exact = got.astype(np.longdouble), exact.astype(np.longdouble)
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
    index = tuple(int(place) for place in np.unravel_index(np.argmax(ratio), ratio.shape))
    place = f"{where}, entry {index}"
    if ratio[index] == -1:
        return Verdict(0.0, 0.0, 0.0, place)
    found = entry(
        name,
        index,
        got.shape,
        found=got[index],
        expected=exact[index],
        allowed=(enclosure.low[index], enclosure.high[index]),
        operands=example.operands,
        scalars=example.scalars,
        hyperparameters=example.hyperparameters,
    )
    return Verdict(float(ratio[index]), float(error[index]), float(budget[index]), place, found)
