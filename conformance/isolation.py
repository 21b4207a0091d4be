"""Performs checks in worker processes, with a limit on the time of each."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from threading import get_ident
from types import TracebackType
from typing import Any

from hessiod.conformance.case import FAIL, Case
from hessiod.conformance.check import Check, Outcome, not_run, perform
from hessiod.conformance.search_path import search_path
from hessiod.conformance.side_by_side import side_by_side

START_LIMIT = 120.0
"""Seconds that a worker may take to import its framework."""
END_LIMIT = 20.0
"""Seconds that a worker may take to end, with what it started."""
THREADS = {"OMP_NUM_THREADS": "1"}
"""Of a worker, unless the environment says otherwise: several work at the same time, on small arrays."""


class Worker:
    """A process that performs one backend's checks."""

    def __init__(self, backend: str, device: str | None, seed: int = 0) -> None:
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        self.folder = tempfile.TemporaryDirectory(prefix="hessiod-")  # some frameworks leave files where they run
        command = [
            sys.executable,
            "-m",
            "hessiod.conformance.worker",
            backend,
            str(seed),
            *([device] if device else []),
        ]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            cwd=self.folder.name,
            env=THREADS | os.environ | {"PYTHONPATH": search_path()},
            start_new_session=True,
        )
        self.buffer = b""
        self.ready = self.idle = False

    def ask(self, request: Mapping[str, Any], limit: float) -> bytes | None:
        """The answer's line; None if there was none within the limit; empty if the process ended."""
        if not self.ready:
            greeting = self.line(START_LIMIT)
            if not greeting:
                return greeting
            self.ready = True
        assert self.process.stdin is not None
        self.idle = False
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return b""
        answer = self.line(limit)
        self.idle = bool(answer)
        return answer

    def line(self, limit: float) -> bytes | None:
        """Read up to the next line's end."""
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in self.buffer:
                if not selector.select(limit):
                    return None
                part = os.read(self.process.stdout.fileno(), 1 << 16)
                if not part:
                    return b""
                self.buffer += part
        answer, _, self.buffer = self.buffer.partition(b"\n")
        return answer

    def fate(self) -> str:
        """How the process ended, and the last thing it said."""
        code = self.process.wait()
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit status {code}"
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").strip().splitlines()
        return f"the process ended {how}" + (f": {lines[-1][:200]}" if lines else "")

    def dismiss(self) -> None:
        """Let the process tidy up and end by itself, if it only waits for the next request."""
        if self.idle:
            assert self.process.stdin is not None
            self.process.stdin.close()

    def finish(self) -> None:
        """Wait for the end of a process that was dismissed; end any other."""
        if self.idle:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(END_LIMIT)
        self.stop()

    def kill(self) -> None:
        """End the process and what it started; whoever waits for an answer gets none."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)

    def stop(self) -> None:
        """End the process and what it started, and clean up after it."""
        self.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.log):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()
        self.folder.cleanup()


class Isolation:
    """A context in which :meth:`perform` runs each check in a worker of its backend, and a dead worker is replaced.

    A thread has workers of its own.

    Args:
        limit: seconds that one check may take.
        device: the device of all workers; None for each backend's default.
        seed: of the drawn inputs.
        jobs: how many workers test at the same time.
    """

    def __init__(self, limit: float, device: str | None = None, seed: int = 0, jobs: int = 2) -> None:
        self.limit, self.device, self.seed, self.jobs = limit, device, seed, jobs
        self.workers: dict[tuple[int, str], Worker] = {}
        self.begun: dict[str, Worker] = {}

    def begin(self, backends: Sequence[str]) -> None:
        """Start the first workers while this process imports the same frameworks."""
        self.begun = {name: Worker(name, self.device, self.seed) for name in backends[: self.jobs]}

    def __enter__(self) -> Isolation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        workers = (*self.workers.values(), *self.begun.values())
        for worker in workers:
            worker.dismiss()
        for worker in workers:
            worker.finish()

    def perform(self, check: Check, known: Mapping[str, Any]) -> Outcome:
        """Like :func:`hessiod.conformance.check.perform`; comparisons of known data need no worker."""
        if check.compares or not_run(check, known):
            return perform(check, known)
        place = get_ident(), check.backend
        if place not in self.workers:
            begun = self.begun.pop(check.backend, None)
            self.workers[place] = begun or Worker(check.backend, self.device, self.seed)
        worker = self.workers[place]
        data = {identity: known[identity] for identity in check.after}
        answer = worker.ask({"check": check.id, "known": data}, self.limit)
        if answer:
            return outcome(check, json.loads(answer))
        why = f"no answer within {self.limit:g} s; stopped" if answer is None else worker.fate()
        self.workers.pop(place).stop()
        return Outcome(check.rows(FAIL, why))

    def run(self, checks: Sequence[Check]) -> Iterator[tuple[Check, Outcome]]:
        """Perform checks, in ``jobs`` workers at a time."""
        return side_by_side(checks, self.perform, self.jobs, self.kill)

    def kill(self) -> None:
        """End every worker at once."""
        for worker in tuple(self.workers.values()):
            worker.kill()


def outcome(check: Check, message: Mapping[str, Any]) -> Outcome:
    """A worker's answer; only the rows that were chosen."""
    wanted = set(check.case_ids)
    cases = [Case(**row) for row in message["cases"] if row["id"] in wanted]
    return Outcome(cases, message["data"])
