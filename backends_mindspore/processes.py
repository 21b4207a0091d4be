"""Several processes on this machine, for the conformance suite; see :class:`hessiod.backends.processes.Processes`."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import mindspore as ms
from mindspore.communication import get_group_size, get_rank, init

from hessiod.backends_mindspore.trainer import MindSporeTrainer

MSRUN = "mindspore.parallel.cluster.run"


class MindSporeProcesses:
    """Started by msrun, data parallel: MCCL on the host."""

    dtypes = ("float32",)

    def reason(self, optimizer: str, count: int) -> str:
        """Why so many processes cannot train here."""
        return "" if find_spec(MSRUN) else "this MindSpore has no msrun"

    def command(self, count: int, arguments: Sequence[str]) -> Sequence[str]:
        """Msrun, which finds ``python`` on the path; it numbers no worker ``count``, so that it shows none's log."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        number = [f"--worker_num={count}", f"--local_worker_num={count}", f"--tail_worker_log={count}"]
        where = ["--master_addr=127.0.0.1", f"--master_port={port}", "--join=True", "--log_dir=logs"]
        return [sys.executable, "-m", MSRUN, *number, *where, "python", *arguments]

    def join(self) -> tuple[int, int]:
        """Join the processes that msrun started; its scheduler ends here."""
        init()
        ms.set_auto_parallel_context(parallel_mode="data_parallel", gradients_mean=True)
        return get_rank(), get_group_size()

    def trainer(self, *, dtype: str, **arguments: Any) -> MindSporeTrainer:
        """A trainer whose step takes this process's rows."""
        return MindSporeTrainer(**arguments)

    def alone(self, *, dtype: str, **arguments: Any) -> MindSporeTrainer:
        """One process; sampled targets are numbered through a batch, whoever has its rows."""
        return MindSporeTrainer(**arguments)
