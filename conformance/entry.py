"""One entry of a result, with everything that went into it, as a report shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np


def number(value: Any) -> float | str:
    """A number as JSON holds it, which has no infinity and no NaN: those are words.

    >>> number(np.float32(0.1)), number(np.float64("-inf"))
    (0.10000000149011612, '-inf')
    """
    value = float(value)
    return value if isfinite(value) else str(value)


def entry(
    result: str,
    index: tuple[int, ...],
    shape: Sequence[int],
    *,
    found: Any,
    expected: Any,
    allowed: tuple[Any, Any],
    operands: Mapping[str, np.ndarray],
    scalars: Mapping[str, float],
    hyperparameters: Mapping[str, float],
) -> dict[str, Any]:
    """An entry of a kernel's result, in the words of ``report.schema.json``.

    ``operands`` are whole arrays, of which the entry at ``index`` is kept.
    """
    return {
        "result": result,
        "index": list(index),
        "shape": list(shape),
        "found": number(found),
        "expected": number(expected),
        "allowed": [number(end) for end in allowed],
        "operands": {name: number(array[index]) for name, array in operands.items()},
        "scalars": {name: number(value) for name, value in scalars.items()},
        "hyperparameters": {name: number(value) for name, value in hyperparameters.items()},
    }


def in_words(worst: Mapping[str, Any]) -> str:
    """An entry in one line.

    >>> in_words({"result": "param", "index": [3], "shape": [8], "found": 1.0, "expected": 2.0, "allowed": [2.0, 2.0],
    ...           "operands": {"param": 0.5, "grad": "inf"}, "scalars": {"lr": 0.1}, "hyperparameters": {}})
    'param[3] of 8: found 1, expected 2; param 0.5, grad inf; lr 0.1'
    """
    place = f"{worst['result']}{worst['index']} of {'x'.join(map(str, worst['shape'])) or 'one'}"
    parts = [f"{place}: found {shown(worst['found'])}, expected {shown(worst['expected'])}"]
    for values in (worst["operands"], worst["hyperparameters"] or worst["scalars"]):
        parts.append(", ".join(f"{name} {shown(value)}" for name, value in values.items()))
    return "; ".join(part for part in parts if part)


def shown(value: float | str) -> str:
    """A number in as many digits as a float32 has."""
    return value if isinstance(value, str) else f"{value:.9g}"
