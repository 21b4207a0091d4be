"""Clipping by the norm of all gradients together (Pascanu, Mikolov and Bengio, ICML 2013, Algorithm 1).

::

    g = g * bound / max(bound, ||g||)

A norm within the bound multiplies by 1, exactly.
"""

from __future__ import annotations

from math import inf
from typing import Any

from hessiod.core.errors import InvalidArgument


def check_clip_grad(clip_grad: Any, others: str = "") -> None:
    """Raise :class:`InvalidArgument` unless this is a bound; ``others`` names what else is taken."""
    if isinstance(clip_grad, bool) or not isinstance(clip_grad, int | float) or not 0 < clip_grad < inf:
        raise InvalidArgument(f"clip_grad: found {clip_grad!r}, expected a norm > 0, {others}or None for no clipping")


def clip_factor(xp, bound, norm):
    """What gradients are multiplied by.

    >>> from hessiod.core import host
    >>> clip_factor(host, 1.0, 0.5), clip_factor(host, 1.0, 4.0)
    (1.0, 0.25)
    """
    return bound / xp.maximum(bound, norm)
