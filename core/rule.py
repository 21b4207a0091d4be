"""The form of an update rule: scalar arithmetic on the host, once, in doubles; array arithmetic in a pure kernel.

The split is what makes backends agree. A scalar such as ``1 - lr * weight_decay`` that is worked out inside an array
function is rounded in single precision by some frameworks and in double by others, and the results drift apart by
hundreds of ULP. Worked out beforehand in doubles, it meets each array directly and is rounded once, at the same place,
everywhere.

    scalars(**hyperparameters) -> {name: double}
    kernel(xp, *operands, **scalars) -> (*results)

A kernel returns a plain tuple: MindSpore would build a NamedTuple by calling back into Python from inside the graph,
and then take its entries for float64. It multiplies by scalars and never divides an array by one: some frameworks do
that as a multiplication by the reciprocal, which rounds twice.

``xp`` is the namespace of array functions that a backend supplies (:mod:`hessiod.backends.contract` lists it).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from inspect import signature
from math import isfinite
from typing import Any

from hessiod.core.errors import InvalidArgument


@dataclass(frozen=True)
class Hyperparameter:
    """A scalar that a rule takes: its default, the numbers it may be, and what to do when it is not one of them.

    ``low <= value < below``; ``low`` itself is excluded when ``open_low`` is set.
    """

    default: float
    low: float
    below: float = float("inf")
    open_low: bool = False
    way_out: str = ""

    def check(self, name: str, value: Any) -> None:
        """Raise :class:`InvalidArgument` unless ``value`` is a real number within the bounds."""
        inside = (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and isfinite(value)
            and (self.low < value if self.open_low else self.low <= value)
            and value < self.below
        )
        if not inside:
            bounds = f"{'>' if self.open_low else '>='} {self.low:g}"
            if self.below != float("inf"):
                bounds = f"in {'(' if self.open_low else '['}{self.low:g}, {self.below:g})"
            raise InvalidArgument(f"{name}: found {value!r}, expected a number {bounds}; {self.way_out}")


@dataclass(frozen=True)
class Kernel:
    """A pure array function together with the scalars it takes and the names of what it reads and writes.

    ``operands`` and ``results`` name the arrays in the order of the function's arguments and of its results. The
    names "param", "grad" and "estimate" are the parameter, its gradient and a curvature estimate; every other name is a
    state slot. The two tuples are all an adapter needs to call the kernel, and they are also its memory traffic:
    ``(len(operands) + len(results)) * itemsize`` bytes per element.
    """

    function: Callable[..., Any]
    scalars: Callable[..., Mapping[str, float]]
    operands: tuple[str, ...]
    results: tuple[str, ...]

    @cached_property
    def hyperparameters(self) -> tuple[str, ...]:
        """Names of the hyperparameters that the scalars are made of.

        Besides a rule's own, they may be "step", the number of this step, and "refreshes", that of curvature updates so
        far, both counted from 1.
        """
        return tuple(signature(self.scalars).parameters)

    def scalars_from(self, values: Mapping[str, Any]) -> Mapping[str, float]:
        """The kernel's scalars, from a mapping that may hold more hyperparameters than it needs."""
        return self.scalars(**{name: values[name] for name in self.hyperparameters})


@dataclass(frozen=True)
class Rule:
    """An update rule: state slots, hyperparameters, the step's kernel and, for second-order rules, the curvature's.

    ``step`` is applied at every step. ``refresh`` folds a new curvature estimate into the state and runs before the
    step on the steps where curvature is due. ``measures`` are read-only kernels of the state that return one number
    each: how many entries are clipped, say, of which an optimizer reports the share.
    """

    name: str
    slots: tuple[str, ...]
    hyperparameters: Mapping[str, Hyperparameter]
    step: Kernel
    refresh: Kernel | None = None
    measures: Mapping[str, Kernel] = field(default_factory=dict)

    def check(self, values: Mapping[str, Any]) -> None:
        """Raise :class:`InvalidArgument` for the first hyperparameter in ``values`` that this rule cannot take."""
        for name, value in values.items():
            if name not in self.hyperparameters:
                known = ", ".join(self.hyperparameters)
                raise InvalidArgument(f"{name}: {self.name} has no such hyperparameter; it has {known}")
            self.hyperparameters[name].check(name, value)

    @property
    def defaults(self) -> dict[str, float]:
        """Every hyperparameter's default."""
        return {name: hyperparameter.default for name, hyperparameter in self.hyperparameters.items()}


LEARNING_RATE = Hyperparameter(
    1e-3, low=0.0, way_out="use 0 to hold parameters still, or maximize=True to climb instead of descend"
)
WEIGHT_DECAY = Hyperparameter(0.0, low=0.0, way_out="use 0 for no decay")


def decay_rate(default: float) -> Hyperparameter:
    """A coefficient of an exponential moving average, such as the entries of ``betas``."""
    return Hyperparameter(default, low=0.0, below=1.0, way_out="0 forgets at once, 0.99 averages about 100 steps")
