"""What :meth:`~hessiod.backends_torch.adapter.RuleOptimizer.diagnostics` reports, from the state on demand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from hessiod.backends_torch import namespace as xp
from hessiod.core.rule import Kernel


def share(measure: Kernel, states: Iterable[Mapping[str, Any]], values: Mapping[str, Any]) -> tuple[float, int]:
    """The count that a rule's measure finds over all states, and the number of entries it looked at."""
    found, total, scalars = 0.0, 0, measure.scalars_from(values)
    for state in states:
        arrays = [state[name] for name in measure.operands]
        found += measure.function(xp, *arrays, **scalars).item()
        total += arrays[0].numel()
    return found, total


def changes(before: Iterable[Tensor], after: Iterable[Tensor]) -> float:
    """The Euclidean norm of the difference, in float64."""
    norms = [torch.linalg.vector_norm(b.double() - a.double()) for a, b in zip(before, after, strict=True)]
    return torch.stack(norms).norm().item() if norms else 0.0
