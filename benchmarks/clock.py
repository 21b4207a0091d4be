"""Time spent inside of chosen functions, on this thread's clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


class Clock:
    """Time inside of wrapped functions; that of excluded ones within is taken off."""

    def __init__(self) -> None:
        self.total, self.depth = 0.0, 0
        self.undo: list[Callable[[], None]] = []

    def wrap(self, owner: Any, name: str, sign: int) -> None:
        """Count a method's time, or, with sign -1, take it off where it runs within a counted one."""
        function = getattr(owner, name)

        def timed(*args: Any, **options: Any) -> Any:
            counted = self.depth == (0 if sign > 0 else 1)
            self.depth += sign
            started = time.thread_time()
            try:
                return function(*args, **options)
            finally:
                self.depth -= sign
                if counted:
                    self.total += sign * (time.thread_time() - started)

        setattr(owner, name, timed)
        self.undo.append(lambda: setattr(owner, name, function))
