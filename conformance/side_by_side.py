"""Checks in several processes at the same time.

Each lane has a backend, whose checks it takes from the front. A lane whose backend has none left takes one that no lane
has; when there is none, it helps where most is left, and takes the last: those are the longest. A check that waited for
one of its own backend goes on in that one's lane, which has compiled what both need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from queue import SimpleQueue
from threading import Condition, Thread
from typing import Any

from hessiod.conformance.check import Check, Outcome

Perform = Callable[[Check, Mapping[str, Any]], Outcome]
Results = SimpleQueue[tuple[Check, Outcome] | Exception]


def part(check: Check) -> tuple[str, ...]:
    """What one lane takes whole.

    A kernel's checks share what is worked out and compiled, levels 4 and 5 a training run, level 6's checks processes.
    """
    if check.level in ("L0", "L6"):
        return (check.level,)
    if check.level == "L1" or (check.level in ("L4", "L5") and not check.after):
        return ("kernel" if check.level == "L1" else "run", check.id.split("/")[1])
    return (check.id,)


class Lanes:
    """What waits to be performed, in parts, by backend; and what waits for others' data."""

    def __init__(self, checks: Sequence[Check]) -> None:
        self.waiting: dict[str, dict[tuple[str, ...], list[Check]]] = {}
        self.taken: set[str] = set()
        self.closed = False
        self.changed = Condition()
        self.unfinished = {check.id for check in checks}
        self.blocked = [check for check in checks if check.after and not check.compares]
        for check in checks:
            if not check.after:
                self.add(check)

    def add(self, check: Check) -> None:
        """One more check, at the end."""
        with self.changed:
            self.waiting.setdefault(check.backend, {}).setdefault(part(check), []).append(check)
            self.changed.notify()

    def take(self, home: str) -> tuple[str, list[Check]] | None:
        """The next part for a lane with the backend ``home``, and its backend from now on; None if there is none."""
        with self.changed:
            while not self.closed:
                left = [name for name, parts in self.waiting.items() if parts]
                home = next((name for name in (home, *left) if name in left and name not in self.taken - {home}), home)
                if home in left:
                    self.taken.add(home)
                    return home, self.waiting[home].pop(next(iter(self.waiting[home])))
                if left:
                    most = max(left, key=lambda name: len(self.waiting[name]))
                    return home, self.waiting[most].popitem()[1]
                self.changed.wait()
            return None

    def finished(self, check: Check) -> list[Check]:
        """What waited for a check no longer waits: its own backend's checks are returned, for the lane it was in."""
        with self.changed:
            self.unfinished.discard(check.id)
            ready = [other for other in self.blocked if not self.unfinished.intersection(other.after)]
            self.blocked = [other for other in self.blocked if other not in ready]
        for other in ready:
            if other.backend != check.backend:
                self.add(other)
        return [other for other in ready if other.backend == check.backend]

    def close(self) -> None:
        """There are no more checks."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()


def side_by_side(
    checks: Sequence[Check], perform: Perform, jobs: int, stop: Callable[[], None] = lambda: None
) -> Iterator[tuple[Check, Outcome]]:
    """Outcomes as they come. A check that takes others' data waits for it; one that only compares runs in this thread.

    Left early, by Ctrl-C for one, it calls ``stop``, which ends what is performed, until nothing is.
    """
    compared = [check for check in checks if check.compares]
    lanes, results, known = Lanes(checks), Results(), dict[str, Any]()
    threads = [Thread(target=work, args=(lanes, perform, known, results), daemon=True) for _ in range(jobs)]
    pending = {check.id for check in checks}
    try:
        for thread in threads:
            thread.start()
        while pending:
            for check in [check for check in compared if not pending.intersection(check.after)]:
                compared.remove(check)
                results.put((check, perform(check, known)))
                for other in lanes.finished(check):
                    lanes.add(other)
            check, outcome = received(results)
            pending.discard(check.id)
            yield check, outcome
    finally:
        lanes.close()
        for thread in threads:
            while thread.is_alive():
                if pending:
                    stop()
                thread.join(0.1)


def work(lanes: Lanes, perform: Perform, known: dict[str, Any], results: Results) -> None:
    """Perform checks until there are no more."""
    home = ""
    while (taken := lanes.take(home)) is not None:
        home, checks = taken
        while checks and not lanes.closed:
            check, *checks = checks
            try:
                outcome = perform(check, known)
            except Exception as error:  # raised again where the results are awaited
                results.put(error)
                continue
            if outcome.data is not None:
                known[check.id] = outcome.data
            checks = [*lanes.finished(check), *checks]
            results.put((check, outcome))


def received(results: Results) -> tuple[Check, Outcome]:
    """The next result, or the error that came in its place."""
    found = results.get()
    if isinstance(found, Exception):
        raise found
    return found
