"""Kernels that run one after another over a parameter, as one graph: each array is then read and written once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hessiod.core.rule import Kernel
from hessiod.core.trace.graph import Graph
from hessiod.core.trace.tracing import trace, trace_function

GRAD_SCALE = "grad_scale"
"""The scalar that the gradient is multiplied by: -1 to climb, the reciprocal of a loss scale, or 1, which is exact."""

_ORDER = {"param": 0, "grad": 2, "estimate": 3}


@dataclass(frozen=True)
class Program:
    """A rule's step, or its curvature refresh and then its step, with a factor on the gradient.

    >>> from hessiod.core import RULES
    >>> rule = RULES["adahessian"]
    >>> Program((rule.refresh, rule.step)).operands
    ('param', 'exp_hessian_diag_sq', 'exp_avg', 'grad', 'estimate')
    """

    kernels: tuple[Kernel, ...]

    @cached_property
    def operands(self) -> tuple[str, ...]:
        """Every array that is read, named as in the kernels: the parameter, state, the gradient, an estimate."""
        names = dict.fromkeys(name for kernel in self.kernels for name in kernel.operands)
        return tuple(sorted(names, key=lambda name: _ORDER.get(name, 1)))

    @cached_property
    def slots(self) -> tuple[str, ...]:
        """The state among the operands."""
        return tuple(name for name in self.operands if name not in _ORDER)

    @cached_property
    def results(self) -> tuple[str, ...]:
        """Every array that is written; all of them are operands too, so that the program runs in place."""
        return tuple(dict.fromkeys(name for kernel in self.kernels for name in kernel.results))

    @cached_property
    def graph(self) -> Graph:
        """The graph of all kernels together."""
        names = [f"{name}_{place}" for place, kernel in enumerate(self.kernels) for name in trace(kernel).scalars]
        title = ", ".join(kernel.function.__name__ for kernel in self.kernels)
        return trace_function(self._run, self.operands, (GRAD_SCALE, *names), self.results, title)

    def scalars_from(self, values: Mapping[str, Any], grad_scale: float = 1.0) -> dict[str, float]:
        """The graph's scalars from hyperparameters."""
        found = {GRAD_SCALE: grad_scale}
        for place, kernel in enumerate(self.kernels):
            found = found | {f"{name}_{place}": value for name, value in kernel.scalars_from(values).items()}
        return found

    def _run(self, xp: Any, *arrays: Any, **scalars: Any) -> tuple[Any, ...]:
        given = dict(zip(self.operands, arrays, strict=True))
        if "grad" in given:
            given = given | {"grad": scalars[GRAD_SCALE] * given["grad"]}
        for place, kernel in enumerate(self.kernels):
            own = {name: scalars[f"{name}_{place}"] for name in trace(kernel).scalars}
            found = kernel.function(xp, *[given[name] for name in kernel.operands], **own)
            given = given | dict(zip(kernel.results, found, strict=True))
        return tuple(given[name] for name in self.results)
