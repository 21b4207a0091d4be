"""What ``opt.diagnostics()`` says about a group's state, from arrays on the host; the same on every framework."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import hypot
from typing import Any

import numpy as np

from hessiod.core.rule import Rule

QUANTILES = {"min": 0.0, "5%": 0.05, "50%": 0.5, "95%": 0.95, "max": 1.0}


def quantiles(arrays: Sequence[np.ndarray]) -> dict[str, float]:
    """Quantiles over all entries together, linear between two of them.

    >>> quantiles([np.array([0.0, 4.0]), np.array([[2.0]])])["50%"]
    2.0
    """
    entries = np.concatenate([array.ravel() for array in arrays])
    if not entries.size:
        return dict.fromkeys(QUANTILES, float("nan"))
    return dict(zip(QUANTILES, np.quantile(entries, list(QUANTILES.values())).tolist(), strict=True))


def negative_share(arrays: Sequence[np.ndarray]) -> float:
    """The share of entries below zero."""
    total = sum(array.size for array in arrays)
    return sum(int((array < 0).sum()) for array in arrays) / total if total else float("nan")


def norm(arrays: Sequence[np.ndarray]) -> float:
    """The Euclidean norm over all entries together."""
    return hypot(*[float(np.linalg.norm(array)) for array in arrays])


def describe(
    rule: Rule, measured: Mapping[str, tuple[float, int]], slots: Mapping[str, Sequence[np.ndarray]], signed: bool
) -> dict[str, Any]:
    """The entries for a group: ``clip_fraction``, ``curvature``, ``negative_curvature``, ``direction_norm``.

    Args:
        rule: the group's rule.
        measured: what each of the rule's measures found in all, and over how many entries.
        slots: the group's arrays in each slot.
        signed: whether the curvature slot keeps the estimates' sign.
    """
    found: dict[str, Any] = {}
    if "clip_fraction" in measured:
        count, entries = measured["clip_fraction"]
        found["clip_fraction"] = count / entries if entries else float("nan")
    slot = rule.refresh.results[0] if rule.refresh else "approx_hessian"
    if slot in slots:
        found["curvature"] = quantiles(slots[slot])
        if signed:
            found["negative_curvature"] = negative_share(slots[slot])
    if "direction_norm" in measured:
        found["direction_norm"] = measured["direction_norm"][0] ** 0.5
    if "update" in slots:
        found["direction_norm"] = norm(slots["update"])
    return found
