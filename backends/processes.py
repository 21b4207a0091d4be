"""What a backend declares so that several processes train one network together (level 6 of the conformance suite)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from hessiod.backends.training.trainer import Trainer


class Processes(Protocol):
    """Processes on this machine, each with a whole network and its own rows of every batch.

    A backend that has them says so by an attribute ``processes``. Rows are shared out in order: with two processes the
    first has the upper half of a batch.
    """

    dtypes: tuple[str, ...]
    """Dtypes of the weights that the framework's collectives take, such as "float32"."""

    def reason(self, optimizer: str, count: int) -> str:
        """Why so many processes cannot train with ``Backend.optimizers[optimizer]`` here; empty if they can."""

    def command(self, count: int, arguments: Sequence[str]) -> Sequence[str]:
        """The framework's launcher: a command line that runs ``python *arguments`` in so many processes.

        It ends when they have ended; when one fails, it ends the others. An interrupt (SIGINT) ends them all.
        """

    def join(self) -> tuple[int, int]:
        """Called once in each process: come together with the others; return this one's rank and their number."""

    def trainer(self, *, dtype: str, **arguments: Any) -> Trainer:
        """As ``Backend.trainer``, for a process that has joined the others; ``step`` takes this process's rows."""

    def alone(self, *, dtype: str, **arguments: Any) -> Trainer:
        """As ``Backend.trainer``, for one process that has whole batches."""
