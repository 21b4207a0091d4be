"""Backends whose processes are broken on purpose, announced to processes that are started with a folder on their path.

``unaveraged``   torch, whose processes each keep the Hessian of their own rows
``moody``        no framework: what its processes do wrong depends on the optimizer
"""

UNAVERAGED = """
from hessiod.backends_torch.backend import TorchBackend
from hessiod.backends_torch.curvature import Hutchinson
from hessiod.backends_torch.processes import TorchProcesses

class Unaveraged(TorchProcesses):
    def join(self):
        Hutchinson.group = None  # nobody else is there
        return super().join()

class Backend(TorchBackend):
    name = "unaveraged"
    processes = Unaveraged()

BACKEND = Backend()
"""

MOODY = """
import os, sys
from types import SimpleNamespace
import numpy as np
from hessiod.backends.generic.optimizer import OPTIMIZERS
from hessiod.backends.numpy import NumpyBackend

LAUNCH = '''
import os, subprocess, sys, time
count, command = int(sys.argv[1]), [sys.executable, *sys.argv[2:]]
started = [subprocess.Popen(command, env=os.environ | {"RANK": str(rank)}) for rank in range(count)]
while not any(one.poll() for one in started) and any(one.poll() is None for one in started):
    time.sleep(0.02)
for one in started:
    one.kill()
sys.exit(max(one.wait() for one in started))
'''

class Processes:
    dtypes = ("float64",)

    def reason(self, optimizer, count):
        return "not today" if optimizer == "apollow" else ""

    def command(self, count, arguments):
        return [sys.executable, "-c", LAUNCH, str(count), *arguments]

    def join(self):
        self.rank = int(os.environ["RANK"])
        return self.rank, 2

    def trainer(self, *, config, weights, dtype):
        return Trainer(config.optimizer, self.rank)

    def alone(self, *, config, weights, dtype):
        return Trainer("adamw", 0)

class Trainer:
    def __init__(self, optimizer, rank):
        self.optimizer, self.rank, self.rows = optimizer, rank, 0

    def step(self, inputs, targets):
        if self.optimizer == "nesterov" and self.rank == 1:
            raise ValueError("no more memory")
        if self.optimizer == "apollo" and self.rank == 1:
            print("out of luck", file=sys.stderr, flush=True)
            os._exit(3)
        self.rows += len(inputs)

    def state(self):
        weight = np.ones(3)
        if self.optimizer == "sophia-h":
            weight = weight * (1.0 + 1e-12)  # as all processes agree
        if self.optimizer == "sophia-g":
            weight = weight * (1.0 + 1e-15 * self.rank)  # within rounding, and yet not the same
        if self.optimizer == "diagonal-newton" and self.rank == 1:
            return {}
        return {"model/weight": weight}

class Backend(NumpyBackend):
    name = "moody"
    optimizers = OPTIMIZERS
    processes = Processes()

BACKEND = Backend()
"""


def announce(folder):
    """Both, by a distribution in a folder."""
    information = folder / "broken_processes-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-processes\nVersion: 1.0\n")
    lines = ["[hessiod.backends]"]
    for name, text in (("unaveraged", UNAVERAGED), ("moody", MOODY)):
        (folder / f"{name}_processes.py").write_text(text)
        lines.append(f"{name} = {name}_processes:BACKEND")
    (information / "entry_points.txt").write_text("\n".join(lines))
