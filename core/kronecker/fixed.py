"""K-FAC's policy: statistics every few steps, inverses every few more (Martens and Grosse, arXiv:1503.05671)."""

from __future__ import annotations

from hessiod.core.errors import InvalidArgument


def check_interval(name: str, value: int) -> None:
    """Raise :class:`InvalidArgument` unless ``value`` is a whole number of steps, at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidArgument(f"{name}: found {value!r}, expected a whole number of steps >= 1")


def due(step: int, every: int) -> bool:
    """Whether something that happens at steps 1, 1 + every, 1 + 2 * every, ... happens at ``step``.

    >>> [step for step in range(1, 12) if due(step, 5)]
    [1, 6, 11]
    """
    return (step - 1) % every == 0


def inverse_due(step: int, every: int, refreshes: int) -> bool:
    """Whether factors with ``refreshes`` statistics in them are inverted at ``step``.

    Also after each of the first few refreshes: the average is young then, and an inverse of one batch would be held on
    to for a whole interval.
    """
    return refreshes > 0 and (due(step, every) or refreshes <= 2)
