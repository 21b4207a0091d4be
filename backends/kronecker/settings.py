"""The settings that K-FAC, SP-NGD and THOR share on every backend, and their checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hessiod.core.errors import InvalidArgument
from hessiod.core.kronecker.damping import DAMPING
from hessiod.core.kronecker.fixed import check_interval
from hessiod.core.kronecker.inverses import INVERSES
from hessiod.core.kronecker.stale import ALPHA
from hessiod.core.kronecker.trace_rule import check_thresholds
from hessiod.core.kronecker.trust_region import KL_CLIP
from hessiod.core.likelihood import RESIDUALS
from hessiod.core.rule import LEARNING_RATE, decay_rate

SHARED: dict[str, Any] = {
    "lr": 1e-3,
    "momentum": 0.9,
    "dampening": 0.0,
    "nesterov": False,
    "weight_decay": 0.0,
    "beta1": 0.9,
    "beta2": 0.999,
    "eps": 1e-8,
    "fallback": "adamw",
    "fallback_lr": 1e-3,
    "damping": 1e-3,
    "kl_clip": 1e-3,
    "factor_every": 1,
    "inverse_every": 1,
    "factor_decay": 0.95,
    "fisher": "monte-carlo",
    "likelihood": "categorical",
    "reduction": "mean",
    "inverse": "cholesky",
    "block_size": None,
    "seed": 0,
}
"""Every setting that all three have, with a value. They are kept in the groups so that ``state_dict`` holds them."""

CHOICES = {
    "fisher": ("monte-carlo", "empirical"),
    "likelihood": tuple(RESIDUALS),
    "reduction": ("mean", "batchmean", "sum"),
    "inverse": tuple(INVERSES),
    "fallback": ("adamw", "sgd"),
}
NUMBERS = {"damping": DAMPING, "kl_clip": KL_CLIP, "alpha": ALPHA, "factor_decay": decay_rate(0.95)}
INTERVALS = ("factor_every", "inverse_every", "longest", "adapt_every")
OPTIONAL = ("kl_clip", "block_size", "thresholds")
CHECKED = (*CHOICES, *NUMBERS, *INTERVALS, "block_size", "thresholds", "seed", "fallback_lr")
"""What :func:`check_settings` looks at."""


def check_settings(settings: Mapping[str, Any], skip: Sequence[str]) -> None:
    """Raise :class:`InvalidArgument` for the first setting that is not what it may be.

    >>> check_settings({**SHARED, "damping": 0.0}, ())
    Traceback (most recent call last):
    hessiod.core.errors.InvalidArgument: damping: found 0.0, expected a number > 0; 1e-4 to 1e-1 is usual; ...
    """
    if isinstance(skip, str):
        raise InvalidArgument(f"skip: found {skip!r}, expected a list of patterns; write skip=[{skip!r}]")
    given = {name: value for name, value in settings.items() if value is not None or name not in OPTIONAL}
    for name, choices in CHOICES.items():
        if given[name] not in choices:
            raise InvalidArgument(f"{name}: found {given[name]!r}, expected one of {', '.join(choices)}")
    for name in (name for name in NUMBERS if name in given):
        NUMBERS[name].check(name, given[name])
    for name in (name for name in INTERVALS if name in given):
        check_interval(name, given[name])
    if "thresholds" in given:
        check_thresholds(given["thresholds"])
    size, seed = given.get("block_size", 1), given["seed"]
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise InvalidArgument(f"block_size: found {size!r}, expected a whole number >= 1; 128 is THOR's, None is one")
    if not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise InvalidArgument(f"seed: found {seed!r}, expected an integer in [0, 2^64)")
    if "fallback_lr" in given:  # where it may be a schedule, the backend looks at it
        LEARNING_RATE.check("fallback_lr", given["fallback_lr"])


def check_pace(damping_decay: Any, growth: Any, epoch_steps: Any) -> None:
    """Raise :class:`InvalidArgument` for the first of THOR's own settings that is not what it may be."""
    DAMPING.check("damping_decay", damping_decay)
    if not isinstance(growth, int | float) or not growth >= 1:
        raise InvalidArgument(f"growth: found {growth!r}, expected a number >= 1; 1 keeps the interval")
    if epoch_steps is not None:
        check_interval("epoch_steps", epoch_steps)


def check_recipe(damping_start: Any, damping_steps: Any, rescale: Any) -> None:
    """Raise :class:`InvalidArgument` for the first of SP-NGD's own settings that is not what it may be."""
    if (damping_start is None) != (damping_steps == 0):
        raise InvalidArgument(
            f"damping_start: found {damping_start!r} with damping_steps={damping_steps!r}, expected both or neither"
        )
    if damping_start is not None:
        DAMPING.check("damping_start", damping_start)
    if isinstance(rescale, str):
        raise InvalidArgument(f"rescale: found {rescale!r}, expected a list of patterns; write rescale=[{rescale!r}]")
