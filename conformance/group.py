"""Several processes of one backend, started once, which answer requests until they are stopped."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from hessiod.backends.checkpoint import write_atomically
from hessiod.backends.contract import Backend
from hessiod.conformance.ranks import POLL
from hessiod.conformance.search_path import search_path

GRACE = 10.0
"""Seconds that processes have to end by themselves."""

Arrays = dict[str, np.ndarray]


class Group:
    """Processes that are started with the first request, and anew after a request that failed."""

    def __init__(self, backend: Backend, count: int) -> None:
        self.backend, self.count = backend, count
        self.launcher: subprocess.Popen[bytes] | None = None
        self.requests = 0

    def train(self, optimizer: str, dtype: str) -> list[Arrays]:
        """What each process holds after a run, by rank; raise what one of them raised, or how they ended."""
        if self.launcher is None:
            self.start()
        number, self.requests = self.requests, self.requests + 1
        write_atomically(self.folder / f"{number}.request", f"{optimizer} {dtype}".encode())
        try:
            self.await_answers(number)
        except BaseException:
            self.stop(GRACE if self.launcher and self.launcher.poll() is not None else 0.0)
            raise
        return [self.arrays(self.folder / f"{number}.{rank}.npz") for rank in range(self.count)]

    def start(self) -> None:
        """Start the launcher."""
        self.place = tempfile.TemporaryDirectory(prefix="hessiod-", ignore_cleanup_errors=True)
        self.folder, self.requests = Path(self.place.name), 0
        program = ["-m", "hessiod.conformance.ranks", self.place.name, self.backend.name, self.backend.devices()[0]]
        command = getattr(self.backend, "processes").command(self.count, program)  # noqa: B009
        paths = {
            "PYTHONPATH": search_path(),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        }
        with (self.folder / "log").open("wb") as log:
            self.launcher = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={"OMP_NUM_THREADS": "1"} | os.environ | paths,
            )
        atexit.register(self.stop)

    def await_answers(self, number: int) -> None:
        """Wait until every process has answered; raise as soon as one cannot."""
        assert self.launcher is not None
        while True:
            ended = self.launcher.poll()
            for rank in range(self.count):
                error = self.folder / f"{number}.{rank}.error"
                if error.exists():
                    raise RuntimeError(f"process {rank}: {error.read_text()}")
            if all((self.folder / f"{number}.{rank}.npz").exists() for rank in range(self.count)):
                return
            if ended is not None:
                raise RuntimeError(f"the processes ended with exit status {ended}{self.last_words()}")
            time.sleep(POLL)

    def last_words(self) -> str:
        """The last line that a process, or else the launcher, wrote."""
        logs = [*sorted(self.folder.glob("**/worker_*.log")), self.folder / "log"]
        lines = [line for log in logs for line in log.read_text(errors="replace").strip().splitlines()[-1:]]
        return f": {lines[0][:200]}" if lines else ""

    @staticmethod
    def arrays(path: Path) -> Arrays:
        """A process's answer."""
        with np.load(path, allow_pickle=False) as found:
            return dict(found)

    def stop(self, grace: float = GRACE) -> None:
        """End the processes: by an empty request, and where they do not heed it, with their launcher."""
        launcher, self.launcher = self.launcher, None
        atexit.unregister(self.stop)
        if launcher is None:
            return
        write_atomically(self.folder / f"{self.requests}.request", b"")
        try:
            launcher.wait(grace)
        except subprocess.TimeoutExpired:
            launcher.send_signal(signal.SIGINT)  # launchers then end what they started
            try:
                launcher.wait(GRACE)
            except subprocess.TimeoutExpired:
                launcher.kill()
                launcher.wait()
        self.place.cleanup()
