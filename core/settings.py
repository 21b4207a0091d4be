"""Settings of a curvature estimate, checked alike on every backend: when it is made, and from which draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hessiod.core.errors import InvalidArgument
from hessiod.core.likelihood import RESIDUALS
from hessiod.core.philox import PROBES
from hessiod.core.rule import Hyperparameter

ESTIMATORS = ("gauss-newton-bartlett", "hutchinson")
TIMINGS = ("paper", "official")
_FRACTION = Hyperparameter(1.0, low=0.0, below=1.0 + 1e-9, open_low=True, way_out="0.5 is the paper's, 1 is all")


def whole(low: int, unit: str, below: int | None = None, way_out: str = "") -> Callable[[str, Any], None]:
    """A check that a setting is an integer; True and False are none."""

    def check(name: str, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < low or (below and value >= below):
            raise InvalidArgument(f"{name}: found {value!r}, expected {unit}{way_out}")

    return check


def one_of(*choices: Any) -> Callable[[str, Any], None]:
    """A check that a setting is one of some words."""

    def check(name: str, value: Any) -> None:
        if not isinstance(value, str) or value not in choices:
            raise InvalidArgument(f"{name}: found {value!r}, expected one of {', '.join(choices)}")

    return check


def _check_flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise InvalidArgument(f"{name}: found {value!r}, expected True or False")


CHECKS: dict[str, Callable[[str, Any], None]] = {
    "every": whole(1, "a whole number of steps >= 1", way_out="; 10 is Sophia's"),
    "seed": whole(0, "an integer in [0, 2^64)", below=2**64),
    "samples": whole(1, "a whole number of probes >= 1", way_out="; 1 is usual"),
    "num_vectors": whole(1, "a whole number of probes >= 1", way_out="; 1 is usual"),
    "estimator": one_of(*ESTIMATORS),
    "likelihood": one_of(*RESIDUALS),
    "probe": one_of(*PROBES),
    "timing": one_of(*TIMINGS),
    "fraction": _FRACTION.check,
    "warm_start": _check_flag,
}
"""By the name of the setting."""


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise :class:`InvalidArgument` for the first setting that is not what it may be; other names are passed over.

    >>> check_settings({"every": 10, "probe": "rademacher", "lr": 0.1})
    >>> check_settings({"every": 2.5})
    Traceback (most recent call last):
    hessiod.core.errors.InvalidArgument: every: found 2.5, expected a whole number of steps >= 1; 10 is Sophia's
    """
    for name, value in settings.items():
        if name in CHECKS:
            CHECKS[name](name, value)
