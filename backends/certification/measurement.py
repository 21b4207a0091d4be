"""One route's derivatives of a case, held against the golden ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hessiod.core.errors import HessiodError

FIRST_TOLERANCE, SECOND_TOLERANCE = 1e-4, 1e-4
"""Largest norm of the error relative to the norm of the derivative, in float32.

1e-4 is 1700 roundings of 2^-24. A case takes at most about 100 in a row, and float32 functions such as MindSpore's exp
are up to 30 ULP off at these points. Everything right was measured below 7e-5, the worst being sinc near zero, whose
second derivative cancels. Silent errors start at 1e-2, since the cases that have small ones at unit scale (a forgotten
epsilon) are there once more at a scale of 0.02.
"""


DIED = "the process "
"""How the reason begins where a case brought its process down."""


@dataclass
class Measurement:
    """Relative errors of the gradient and of the Hessian's product, or what was raised instead.

    ``refused`` says that hessiod itself refused; other errors are the framework's.
    """

    first: float | None = None
    second: float | None = None
    first_error: str = ""
    second_error: str = ""
    refused: bool = False
    operators: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self) | {"operators": list(self.operators)}

    @property
    def died(self) -> bool:
        """Whether the process died or hung over it."""
        return self.second_error.startswith(DIED)

    @property
    def raised(self) -> bool:
        """Whether no second derivative came out."""
        return bool(self.second_error)

    @property
    def right(self) -> bool:
        """Whether both derivatives came out and are right."""
        unmeasured = self.first is None and not self.first_error
        return (unmeasured or within(self.first, FIRST_TOLERANCE)) and within(self.second, SECOND_TOLERANCE)

    @property
    def wrong(self) -> bool:
        """Whether a number came out that is off."""
        return (self.first is not None and not within(self.first, FIRST_TOLERANCE)) or (
            self.second is not None and not within(self.second, SECOND_TOLERANCE)
        )


def within(error: float | None, tolerance: float) -> bool:
    """Whether there is an error and it is small; NaN is not."""
    return error is not None and error <= tolerance


def relative_error(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """The norm of the difference over all inputs, relative to the norm of the truth; infinite if not finite."""
    pairs = [(np.asarray(f, np.float64).reshape(e.shape), e) for f, e in zip(found, expected, strict=True)]
    difference = sum(float(((f - e) ** 2).sum()) for f, e in pairs)
    size = sum(float((e**2).sum()) for _, e in pairs)
    error = (difference / size) ** 0.5
    return error if np.isfinite(error) else float("inf")


Derivative = Callable[[], Sequence[np.ndarray]]


def compare(
    gradient: Derivative | None, product: Derivative, gradients: Sequence[np.ndarray], products: Sequence[np.ndarray]
) -> Measurement:
    """Run the derivatives and compare each; what is raised is part of the answer. None is not measured."""
    found = Measurement()
    for order, derivative, expected in (("first", gradient, gradients), ("second", product, products)):
        if derivative is None:
            continue
        try:
            setattr(found, order, relative_error(derivative(), expected))
        except Exception as error:
            setattr(found, f"{order}_error", summary(error))
            found.refused |= isinstance(error, HessiodError)
    return found


PLACES = re.compile(
    r"(,? ?\b(In file|in file|See file|node:|NodeInfo|FunctionGraph|location:|please refer|Please ).*)", re.S
)
"""Where an exception's text turns to files, graphs and advice."""


def summary(error: BaseException) -> str:
    """An exception in one line, without the frameworks' boilerplate."""
    lines = [line.strip() for line in PLACES.sub("", str(error)).splitlines()]
    telling = [line for line in lines if line and not set(line) <= set("-=# ") and not line.startswith("- ")]
    return f"{type(error).__name__}: {' '.join(telling[:2])}"[:160].rstrip(" :")
