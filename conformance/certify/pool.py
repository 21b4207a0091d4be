"""Workers that may crash: each measures many cases in one process, and is replaced when it dies or hangs."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

from hessiod.backends.certification.measurement import DIED, Measurement

MODULES = {name: f"hessiod.backends_{name}.certification.measure" for name in ("torch", "mindspore")}
"""Where a backend's measurements are."""

SECONDS = 120.0
"""After which a case is given up; the slowest takes 5."""


class Task(NamedTuple):
    """A case by a route."""

    name: str
    route: str
    check: bool = True


def serve(module_name: str, connection: Connection, environment: dict[str, str]) -> None:
    """A worker's life: measure what is asked for until there is nothing more."""
    os.environ.update(environment)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # MindSpore writes rank_0/ into the current directory
        module = importlib.import_module(module_name)
        with contextlib.suppress(EOFError, BrokenPipeError):  # whoever asked is gone
            while True:
                connection.send(module.measure(*connection.recv()))
        os.chdir("/")


class Worker:
    """A process, the pipe to it, and the task it works on."""

    def __init__(self, backend: str, environment: dict[str, str]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(MODULES[backend], theirs, environment), daemon=True)
        self.process.start()
        theirs.close()
        self.task: Task | None = None
        self.deadline = 0.0

    def take_from(self, waiting: list[Task]) -> bool:
        """Work on the next task; False if there is none, or the process died after its last answer."""
        if not waiting or not self.process.is_alive():
            return False
        try:
            self.connection.send(waiting[-1])
        except OSError:
            return False
        self.task, self.deadline = waiting.pop(), time.monotonic() + SECONDS
        return True

    def answer(self) -> Measurement:
        """What came back, or how the process died."""
        try:
            return self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            code = self.process.exitcode or 0
            how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            return lost(f"{DIED}died: {how}")

    def stop(self) -> None:
        """End the process."""
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self.connection.close()


def lost(why: str) -> Measurement:
    """The measurement of a case that brought its process down."""
    return Measurement(first_error=why, second_error=why)


def measure_all(
    backend: str, tasks: Iterable[Task], jobs: int, environment: dict[str, str] | None = None
) -> Iterator[tuple[Task, Measurement]]:
    """Every task's measurement, as they come."""
    waiting: list[Task] = list(tasks)[::-1]
    settings = {"GLOG_v": "3", "OMP_NUM_THREADS": "1"} | (environment or {})
    workers: list[Worker] = []
    try:
        while waiting or workers:
            while waiting and len(workers) < jobs:
                worker = Worker(backend, settings)
                workers.append(worker)
                if not worker.take_from(waiting):
                    raise RuntimeError(f"certification: no worker process can be started for {backend}")
            yield from answers(workers, waiting)
    finally:
        for worker in workers:
            worker.stop()


def answers(workers: list[Worker], waiting: list[Task]) -> Iterator[tuple[Task, Measurement]]:
    """What the workers that are done say; each gets another task, and the dead and the late leave the list."""
    now = time.monotonic()
    patience = max(0.0, min(worker.deadline for worker in workers) - now)
    ready: list[Any] = wait([worker.connection for worker in workers], timeout=patience)
    for worker in list(workers):
        answered, late = worker.connection in ready, worker.deadline <= time.monotonic()
        if worker.task is None or not (answered or late):
            continue
        yield worker.task, worker.answer() if answered else lost(f"{DIED}gave no answer within {SECONDS:.0f} seconds")
        if not (answered and worker.take_from(waiting)):
            workers.remove(worker)
            worker.stop()
