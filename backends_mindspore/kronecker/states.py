"""A layer's state as Parameters: a checkpoint of MindSpore holds it, and compiled graphs see what is written.

Arrays are NaN until their first value is there, so that nothing can be computed from a factor or an inverse that was
never taken. The policies' counters are float64 numbers, exact for all whole ones; infinity stands for "never again".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import inf, isnan
from typing import Any

import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor

from hessiod.backends_mindspore.holder import put
from hessiod.backends_mindspore.kronecker.layers import Layer


class State:
    """One layer's entries: factors, earlier factors, inverses in blocks, counters.

    ``counters`` maps the policy's entries to how many numbers they hold; 0 is one number that is no tuple.
    """

    def __init__(self, layer: Layer, block: int | None, counters: Mapping[str, int], earlier: bool) -> None:
        kinds = ("factor", "earlier") if earlier else ("factor",)
        self.arrays = {
            f"{kind}_{name}": empty(f"{kind}_{name}.{layer.name}", shape, layer.dtype)
            for kind in kinds
            for name, shape in layer.factor_shapes().items()
        }
        self.inverses = {
            f"inverse_{name}": ParameterTuple(
                [empty(f"inverse_{name}_{i}.{layer.name}", shape, layer.dtype) for i, shape in enumerate(shapes)]
            )
            for name, shapes in layer.inverse_shapes(block).items()
        }
        counters = {**counters, "damping": 0} if self.inverses else counters
        self.counters = {
            name: (length, empty(f"{name}.{layer.name}", (max(length, 1),), np.float64))
            for name, length in counters.items()
        }

    def parameters(self) -> list[Parameter]:
        """All of them."""
        blocks = [param for params in self.inverses.values() for param in params]
        return [*self.arrays.values(), *blocks, *(param for _, param in self.counters.values())]

    def read(self) -> dict[str, Any]:
        """What policies read: arrays that have a value, and counters."""
        found: dict[str, Any] = {}
        for name, param in self.arrays.items():
            array = param.asnumpy()
            if not np.isnan(array.flat[0]):
                found[name] = array
        return found | self.numbers()

    def places(self) -> dict[str, Any]:
        """The Parameters of factors and, in lists, of the inverses' blocks."""
        return {**self.arrays, **{name: list(params) for name, params in self.inverses.items()}}

    def whole(self) -> dict[str, Any]:
        """All that has a value: what policies read, and the inverses."""
        inverses = {name: [param.asnumpy() for param in params] for name, params in self.inverses.items()}
        known = {name: parts for name, parts in inverses.items() if not np.isnan(parts[0].flat[0])}
        return self.read() | known

    def forget(self, kept: Collection[Parameter]) -> None:
        """Make everything empty but what is kept."""
        for param in self.parameters():
            if not any(param is one for one in kept):
                put(param, np.full_like(param.asnumpy(), np.nan))

    def numbers(self) -> dict[str, Any]:
        """The counters that have a value."""
        found: dict[str, Any] = {}
        for name, (length, param) in self.counters.items():
            values = [number(value) for value in param.asnumpy().tolist()]
            if values[0] is None or not isnan(values[0]):
                found[name] = tuple(values) if length else values[0]
        return found

    def write(self, new: Mapping[str, Any]) -> list[tuple[Parameter, np.ndarray]]:
        """Put new entries in place; what was there before, to put it back.

        Everything is copied first: what a policy read, and hands on under another name, is a view.
        """
        pairs = [
            (param, np.array(array, param.asnumpy().dtype))
            for name, value in new.items()
            for param, array in self._places(name, value)
        ]
        before = [(param, param.asnumpy().copy()) for param, _ in pairs]
        for param, array in pairs:
            put(param, array)
        return before

    def _places(self, name: str, value: Any) -> list[tuple[Parameter, Any]]:
        """An entry's Parameters, each with its array."""
        if name in self.counters:
            numbers = value if isinstance(value, tuple) else (value,)
            return [(self.counters[name][1], [inf if n is None else n for n in numbers])]
        if name in self.inverses:
            return list(zip(self.inverses[name], value, strict=True))
        return [(self.arrays[name], value)]


def empty(name: str, shape: tuple[int, ...], dtype: Any) -> Parameter:
    """An array of NaN."""
    return Parameter(Tensor(np.full(shape, np.nan, dtype)), name=name, requires_grad=False)


def number(value: float) -> Any:
    """A counter as a policy knows it: None for infinity, whole numbers as such."""
    if value == inf:
        return None
    return int(value) if value == value and value == int(value) else value
