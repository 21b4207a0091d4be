"""What :meth:`~hessiod.backends_mindspore.adapter.RuleOptimizer.diagnostics` reports, from the state on demand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from hessiod.backends import diagnostics


def members(optimizer: Any) -> list[list[int]]:
    """The positions of each of the user's groups among the optimizer's parameters."""
    count = max(optimizer.user_groups) + 1
    return [[place for place, group in enumerate(optimizer.user_groups) if group == index] for index in range(count)]


@contextmanager
def measured(optimizer: Any) -> Iterator[None]:
    """Keep the norm of what happens to each group's parameters, if that was asked for and a step is taken."""
    if not optimizer.watching:
        yield
        return
    before, steps = [param.asnumpy().copy() for param in optimizer.parameters], optimizer.steps
    yield
    if optimizer.steps == steps:
        return
    after = [param.asnumpy() for param in optimizer.parameters]
    changes = [new.astype(np.float64) - old for new, old in zip(after, before, strict=True)]
    optimizer.update_norms = [diagnostics.norm([changes[place] for place in group]) for group in members(optimizer)]


def report(optimizer: Any) -> list[dict[str, Any]]:
    """One dictionary a group; empty before the first step."""
    if not optimizer.steps:
        return [{} for _ in members(optimizer)]
    counts = {name: optimizer.measurements() for name in optimizer.rule.measures}
    found = []
    for index, group in enumerate(members(optimizer)):
        entries = sum(optimizer.parameters[place].size for place in group)
        totals = {name: (float(count[group].sum()), entries) for name, count in counts.items()}
        slots = {slot: [getattr(optimizer, slot)[place].asnumpy() for place in group] for slot in optimizer.slot_names}
        described = diagnostics.describe(optimizer.rule, totals, slots, optimizer.signed_curvature)
        norms = {"update_norm": optimizer.update_norms[index]} if optimizer.update_norms else {}
        found.append(described | norms)
    return found
