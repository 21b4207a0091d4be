"""Times that can be compared on a machine that others use too: candidates take turns, and ratios are within a turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from statistics import median
from time import perf_counter, thread_time
from typing import Any


@dataclass(frozen=True)
class Times:
    """Seconds a call of each candidate, one number a round, in the order of the rounds."""

    seconds: Mapping[str, tuple[float, ...]]

    def median(self, name: str) -> float:
        """The median over the rounds."""
        return median(self.seconds[name])

    def ratio(self, name: str, base: str) -> float:
        """The median over the rounds of a candidate's time in units of another's in the same round.

        A neighbour that slows the machine down for a while slows both, and the ratio stays.

        >>> Times({"a": (1.0, 2.0, 9.0), "b": (2.0, 4.0, 18.0)}).ratio("a", "b")
        0.5
        """
        return median(a / b for a, b in zip(self.seconds[name], self.seconds[base], strict=True))

    def fastest(self, name: str, base: str) -> float:
        """The ratio of the fastest rounds, which a neighbour disturbed least."""
        return min(self.seconds[name]) / min(self.seconds[base])


def clock_for(threads: int) -> Callable[[], float]:
    """The clock to take: for one thread its own processor time, which leaves out what other processes take.

    >>> clock_for(1) is thread_time, clock_for(2) is perf_counter
    (True, True)
    """
    return thread_time if threads == 1 else perf_counter


def order_of(names: Sequence[str], number: int) -> list[str]:
    """The order of a round: each begins one further on, and takes steps of another length.

    >>> ["".join(order_of("abcde", number)) for number in range(3)]
    ['abcde', 'bdace', 'cadbe']
    """
    count = len(names)
    strides = [stride for stride in range(1, max(count, 2)) if gcd(stride, count) == 1]
    stride = strides[number % len(strides)]
    return [names[(number + place * stride) % count] for place in range(count)]


def interleaved(
    candidates: Mapping[str, Callable[[], Any]],
    *,
    rounds: int = 15,
    warmup: int = 2,
    calls: int = 1,
    prepare: Callable[[], Any] | None = None,
    clock: Callable[[], float] = perf_counter,
) -> Times:
    """Time candidates in turn: each round calls every one, in another order than the round before.

    What runs just before a candidate decides what it finds in the cache, so no two stay neighbours.

    Args:
        candidates: functions by name; on an accelerator they must wait for their own work.
        rounds: how many times each is measured.
        warmup: rounds before that, unmeasured.
        calls: how many calls a measurement averages over; more for fast functions.
        prepare: called before each measurement, unmeasured.
        clock: seconds.

    >>> times = interleaved({"few": lambda: sum(range(10)), "many": lambda: sum(range(100_000))}, rounds=5)
    >>> times.ratio("many", "few") > 1
    True
    """
    names = list(candidates)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-warmup, rounds):
        for name in order_of(names, number):
            if prepare is not None:
                prepare()
            start = clock()
            for _ in range(calls):
                candidates[name]()
            elapsed = (clock() - start) / calls
            if number >= 0:
                seconds[name].append(elapsed)
    return Times({name: tuple(found) for name, found in seconds.items()})
