"""What :meth:`~hessiod.backends_torch.adapter.RuleOptimizer.diagnostics` reports, from the state on demand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import hypot
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hessiod.backends_torch import namespace as xp
from hessiod.core.rule import Kernel

QUANTILES = {"min": 0.0, "5%": 0.05, "50%": 0.5, "95%": 0.95, "max": 1.0}


def share(measure: Kernel, states: Iterable[Mapping[str, Any]], values: Mapping[str, Any]) -> tuple[float, int]:
    """The count that a rule's measure finds over all states, and the number of entries it looked at."""
    found, total, scalars = 0.0, 0, measure.scalars_from(values)
    for state in states:
        arrays = [state[name] for name in measure.operands]
        found += measure.function(xp, *arrays, **scalars).item()
        total += arrays[0].numel()
    return found, total


def quantiles(slots: list[Tensor]) -> dict[str, float]:
    """Quantiles over all entries together, linear between two of them."""
    entries = np.concatenate([slot.detach().cpu().numpy().ravel() for slot in slots])
    if not entries.size:
        return dict.fromkeys(QUANTILES, float("nan"))
    return dict(zip(QUANTILES, np.quantile(entries, list(QUANTILES.values())).tolist(), strict=True))


def negative_share(slots: list[Tensor]) -> float:
    """The share of entries below zero."""
    total = sum(slot.numel() for slot in slots)
    return sum(int((slot < 0).sum()) for slot in slots) / total if total else float("nan")


def norm(slots: list[Tensor]) -> float:
    """The Euclidean norm over all entries together."""
    return hypot(*[torch.linalg.vector_norm(slot).item() for slot in slots])
