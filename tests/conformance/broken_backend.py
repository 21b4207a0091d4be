"""Announces a backend named "broken" to processes that are started with PYTHONPATH set to a folder."""

MODULE = """
import os, signal, time
import numpy as np
from hessiod.backends.contract import Route
from hessiod.backends.numpy import NumpyBackend, run

def moody(kernel, arrays, scalars):
    name = kernel.__module__.rpartition(".")[2]
    if name == "sgd":
        time.sleep(3600)
    if name == "adamw":
        print("out of luck", flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "apollo":
        raise RuntimeError("no such kernel")
    if name == "sophia":
        return tuple(result.astype(np.float16) for result in run(kernel, arrays, scalars))
    return run(kernel, arrays, scalars)

class Broken(NumpyBackend):
    name = "broken"
    dtypes = ("float32",)
    routes = (Route("eager", moody),)

BACKEND = Broken()
"""


def announce(folder):
    (folder / "broken_backend_module.py").write_text(MODULE)
    information = folder / "broken-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[hessiod.backends]\nbroken = broken_backend_module:BACKEND\n")
