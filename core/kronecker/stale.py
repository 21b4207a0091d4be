"""SP-NGD's policy: every statistic is refreshed at an interval of its own, which grows while it changes little.

Osawa et al., arXiv:2002.06015, section 4.3. With X a statistic (some layer's A, its G, its unit-wise block), and X is
*similar* to Y where ``|X - Y|_F / |Y|_F < alpha``, a refresh that brings X after X_1 and X_2 sets the next interval::

    max(1, floor(D_1 / 2))     if X is not similar to X_1
    D_1                        if X is similar to X_1 and not to X_2
    D_1 + D_2                  if it is similar to both

D_1 and D_2 are the last two intervals, 1 and 1 at first: while a statistic stands still, the intervals are Fibonacci's
numbers. No earlier statistic counts as one that is not similar.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hessiod.core.rule import Hyperparameter

ALPHA = Hyperparameter(0.1, low=0.0, open_low=True, way_out="0.1 is the paper's; larger keeps statistics for longer")
TINY = 2.0**-100


def change(xp, statistic, earlier):
    """``|X - Y|_F / |Y|_F``, a 0-d array."""
    difference = statistic - earlier
    return xp.sqrt(xp.sum(difference * difference)) / xp.maximum(xp.sqrt(xp.sum(earlier * earlier)), TINY)


def next_interval(last: int, before: int, similar_to_last: bool, similar_to_second: bool) -> int:
    """The next interval, from the last two and what the new statistic is similar to."""
    if not similar_to_last:
        return max(1, last // 2)
    if not similar_to_second:
        return last
    return last + before


@dataclass(frozen=True)
class Interval:
    """When a statistic is due: ``next`` is a step, counted from 1; ``last`` and ``before`` are the last intervals."""

    next: int = 1
    last: int = 1
    before: int = 1

    def due(self, step: int) -> bool:
        """Whether the statistic is refreshed at ``step``."""
        return step >= self.next

    def after(self, step: int, similar_to_last: bool, similar_to_second: bool) -> Interval:
        """The intervals after a refresh at ``step``.

        >>> interval, steps = Interval(), []
        >>> for step in range(1, 30):
        ...     if interval.due(step):
        ...         steps.append(step)
        ...         interval = interval.after(step, len(steps) > 1, len(steps) > 2)   # a statistic that stands still
        >>> steps
        [1, 2, 3, 5, 8, 13, 21]
        """
        length = next_interval(self.last, self.before, similar_to_last, similar_to_second)
        return replace(self, next=step + length, last=length, before=self.last)
