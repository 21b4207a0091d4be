"""Checks of several backends at the same time: one at a time of each, a few backends at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from queue import SimpleQueue
from threading import Condition, Thread

from hessiod.conformance.check import Check, Outcome

Perform = Callable[[Check, Mapping[str, Sequence[float]]], Outcome]


class Lanes:
    """Which check is next: the first in the plan whose backend is free."""

    def __init__(self, checks: Sequence[Check]) -> None:
        self.waiting = list(checks)
        self.busy: set[str] = set()
        self.changed = Condition()

    def take(self) -> Check | None:
        """Wait for the next check; None if there are no more."""
        with self.changed:
            while self.waiting:
                free = next((check for check in self.waiting if check.backend not in self.busy), None)
                if free is not None:
                    self.waiting.remove(free)
                    self.busy.add(free.backend)
                    return free
                self.changed.wait()
            return None

    def done(self, check: Check) -> None:
        """The check's backend is free again."""
        with self.changed:
            self.busy.discard(check.backend)
            self.changed.notify_all()

    def close(self) -> None:
        """There are no more checks."""
        with self.changed:
            self.waiting.clear()
            self.changed.notify_all()


def side_by_side(
    checks: Sequence[Check], perform: Perform, jobs: int, stop: Callable[[], None] = lambda: None
) -> Iterator[tuple[Check, Outcome]]:
    """Outcomes as they come. A check that compares others' data runs, in this thread, once it has all of them.

    Left early, by Ctrl-C for one, it calls ``stop``, which ends what is performed, until nothing is.
    """
    compare = [check for check in checks if check.after]
    lanes, results = (
        Lanes([check for check in checks if not check.after]),
        SimpleQueue[tuple[Check, Outcome] | Exception](),
    )
    threads = [Thread(target=work, args=(lanes, perform, results), daemon=True) for _ in range(jobs)]
    pending, known = {check.id for check in checks}, dict[str, Sequence[float]]()
    try:
        for thread in threads:
            thread.start()
        while pending:
            ready = next((check for check in compare if not pending.intersection(check.after)), None)
            if ready is not None:
                compare.remove(ready)
                check, outcome = ready, perform(ready, known)
            else:
                check, outcome = received(results)
            pending.discard(check.id)
            if outcome.data:
                known[check.id] = outcome.data
            yield check, outcome
    finally:
        lanes.close()
        for thread in threads:
            while thread.is_alive():
                if pending:
                    stop()
                thread.join(0.1)


def work(lanes: Lanes, perform: Perform, results: SimpleQueue[tuple[Check, Outcome] | Exception]) -> None:
    """Perform checks until there are no more."""
    while (check := lanes.take()) is not None:
        try:
            results.put((check, perform(check, {})))
        except Exception as error:  # raised again where the results are awaited
            results.put(error)
        lanes.done(check)


def received(results: SimpleQueue[tuple[Check, Outcome] | Exception]) -> tuple[Check, Outcome]:
    """The next result, or the error that came in its place."""
    found = results.get()
    if isinstance(found, Exception):
        raise found
    return found
