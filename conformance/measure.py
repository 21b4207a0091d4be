"""A kernel's results on a route, measured against the published formula and against the numpy backend."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from hessiod.backends.contract import STORED, Backend, Route
from hessiod.conformance.enclosure import Interval
from hessiod.conformance.entry import entry
from hessiod.conformance.example import Example
from hessiod.conformance.expected import Expected, expected
from hessiod.conformance.formats import FORMATS


@dataclass(frozen=True)
class Verdict:
    """The entry of a result that comes nearest to its budget."""

    ratio: float
    worst_ulp: float
    budget_ulp: float
    where: str
    entry: dict[str, Any] | None = None


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
    for place, (name, value) in enumerate(zip(kernel.results, got, strict=True)):
        check_form(name, value, example)
        known = expected(example, route.flushes, route.contracts)[place]
        if value.tobytes() != np.resize(known.numpy, value.shape).tobytes():
            found = judged(example, name, value, known if example.base is None else known.over(value.shape))
        elif example.base is None:
            found = numpys_own(example, route.flushes, route.contracts, place)
        else:
            continue  # then both figures are the base's
        for kind, verdict in found.items():
            if kind not in verdicts or verdict.ratio > verdicts[kind].ratio:
                verdicts[kind] = verdict
    return verdicts


@lru_cache(maxsize=512)
def numpys_own(example: Example, flushes: bool, contracts: bool, place: int) -> dict[str, Verdict]:
    """The verdicts of a result that is the numpy backend's, bit for bit: those of most routes."""
    known = expected(example, flushes, contracts)[place]
    return judged(example, example.subject.kernel.results[place], known.numpy, known)


def judged(example: Example, name: str, value: np.ndarray, known: Expected) -> dict[str, Verdict]:
    """The verdicts of one result."""
    formula = judge(name, value, known.formula, known.may, known.ulp, example)
    if not known.is_formula:
        formula = replace(formula, ratio=np.inf, where=f"{formula.where}: the kernel is not the formula")
    return {"formula": formula, "agreement": judge(name, value, known.numpy, known.must, known.ulp, example)}


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
