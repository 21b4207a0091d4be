"""SIGTERM, which schedulers and ``timeout`` send, ends a command as Ctrl-C does."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

from typer import Exit


@dataclass
class Interruption:
    """The signal that interrupted a command, Ctrl-C unless another one came."""

    number: int = signal.SIGINT

    @property
    def status(self) -> int:
        """The exit status of a command that a signal ended, as shells count it."""
        return 128 + self.number

    def interrupt(self, number: int, frame: FrameType | None) -> NoReturn:
        """Handle the signal; another one must not cut short what is written because of it."""
        signal.signal(number, signal.SIG_IGN)
        self.number = number
        raise KeyboardInterrupt


@contextmanager
def terminable() -> Iterator[Interruption]:
    """SIGTERM raises KeyboardInterrupt inside; one that nobody catches is the command's exit status."""
    found = Interruption()
    before = signal.signal(signal.SIGTERM, found.interrupt)
    try:
        yield found
    except KeyboardInterrupt:
        raise Exit(found.status) from None
    finally:
        signal.signal(signal.SIGTERM, before)
