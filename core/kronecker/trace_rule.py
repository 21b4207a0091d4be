"""THOR's policy: a layer's inverses are refreshed, kept, or frozen for good, by how much the layer's trace moved.

Chen et al., AAAI 2021, equation 9. For a layer with ``F = A (x) G``, at a check k::

    change = |tr(F_k + damping I) - tr(F_{k-1} + damping I)| / tr(F_{k-1} + damping I)

    refresh    change > w1                   new inverses
    keep       w2 <= change <= w1            the old inverses; the interval to the next check grows
    freeze     change < w2                   never again, and no statistics are taken

with w1 = 0.01 and w2 = 0.001. The trace compared with is the one of the last refresh. MindSpore's ``nn.thor`` has no
such rule: it refreshes every layer every ``frequency`` steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hessiod.core.errors import InvalidArgument

REFRESH, KEEP, FREEZE = "refresh", "keep", "freeze"
THRESHOLDS = (0.01, 0.001)


def check_thresholds(thresholds: tuple[float, float]) -> None:
    """Raise :class:`InvalidArgument` unless ``thresholds`` is a pair with ``w1 >= w2 >= 0``."""
    if not isinstance(thresholds, tuple | list) or len(thresholds) != 2 or not thresholds[0] >= thresholds[1] >= 0:
        raise InvalidArgument(
            f"thresholds: found {thresholds!r}, expected (w1, w2) with w1 >= w2 >= 0, such as {THRESHOLDS}"
        )


def damped_trace(trace_a, size_a, trace_g, size_g, damping):
    """``tr(A (x) G + damping I) = tr A * tr G + damping * dim A * dim G``.

    >>> damped_trace(2.0, 3, 5.0, 4, 0.5)
    16.0
    """
    return trace_a * trace_g + damping * size_a * size_g


def verdict(trace: float, earlier: float | None, thresholds: tuple[float, float] = THRESHOLDS) -> str:
    """What becomes of a layer whose damped trace was ``earlier`` and is ``trace``.

    >>> [verdict(trace, 1.0) for trace in (1.02, 1.005, 1.0001)], verdict(1.0, None)
    (['refresh', 'keep', 'freeze'], 'refresh')
    """
    if earlier is None:
        return REFRESH
    change = abs(trace - earlier) / earlier
    if change > thresholds[0]:
        return REFRESH
    return FREEZE if change < thresholds[1] else KEEP


@dataclass(frozen=True)
class Check:
    """When a layer is looked at again: ``next`` is a step, counted from 1; None once it is frozen.

    ``trace`` is the damped trace of the last refresh. After a refresh the interval is the shortest one, ``every``;
    after each check that keeps, it is ``growth`` times as long as the last, up to ``longest``.
    """

    next: int | None = 1
    interval: int = 0
    trace: float | None = None

    def due(self, step: int) -> bool:
        """Whether the layer is looked at in ``step``."""
        return self.next is not None and step >= self.next

    def after(self, step: int, found: str, trace: float, *, every: int, growth: float, longest: int) -> Check:
        """The next check after one at ``step`` with the verdict ``found``."""
        if found == FREEZE:
            return replace(self, next=None)
        if found == REFRESH:
            return Check(step + every, every, trace)
        length = min(max(int(self.interval * growth), every), max(longest, every))
        return replace(self, next=step + length, interval=length)
