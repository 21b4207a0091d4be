"""Several processes on this machine, for the conformance suite; see :class:`hessiod.backends.processes.Processes`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from hessiod.backends_torch.trainer import TorchTrainer


class TorchProcesses:
    """Started by torchrun: gloo on the host, NCCL with an accelerator for each process.

    Rules are wrapped in DistributedDataParallel; Kronecker methods share their work out themselves.
    """

    dtypes = ("float32", "float64")

    def __init__(self, device: str = "cpu") -> None:
        self.kind = torch.device(device).type

    def reason(self, optimizer: str, count: int) -> str:
        """Why so many processes cannot train here."""
        if not dist.is_available():
            return "torch was built without torch.distributed"
        devices = count if self.kind == "cpu" else torch.accelerator.device_count()
        return "" if devices >= count else f"{count} processes need {count} devices of {self.kind}; there are {devices}"

    def command(self, count: int, arguments: Sequence[str]) -> Sequence[str]:
        """Torchrun, as a module: its script may lie elsewhere."""
        launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={count}"]
        return [*launcher, "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", *arguments]

    def join(self) -> tuple[int, int]:
        """Join the processes that torchrun started."""
        if self.kind == "cpu":
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all are on this machine
            dist.init_process_group("gloo")
        else:
            torch.accelerator.set_device_index(int(os.environ["LOCAL_RANK"]))
            dist.init_process_group(device_id=torch.device(self.kind, int(os.environ["LOCAL_RANK"])))
        return dist.get_rank(), dist.get_world_size()

    def trainer(self, **arguments: Any) -> TorchTrainer:
        """A trainer whose step takes this process's rows."""
        return TorchTrainer(**arguments, device=self.device(), spread=True)

    def alone(self, **arguments: Any) -> TorchTrainer:
        """One process; sampled targets are numbered through a batch, whoever has its rows."""
        return TorchTrainer(**arguments, device=self.device())

    def device(self) -> str:
        """The one that belongs to this process."""
        return self.kind if self.kind == "cpu" else f"{self.kind}:{torch.accelerator.current_device_index()}"
