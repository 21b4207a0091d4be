"""The MindSpore backend, as the registry and the conformance suite see it."""

from __future__ import annotations

from hessiod.backends.registry import require

require("mindspore", extra="mindspore")

from collections.abc import Callable, Mapping, Sequence  # noqa: E402
from typing import Any  # noqa: E402

import mindspore as ms  # noqa: E402
import numpy as np  # noqa: E402
from mindspore import Tensor  # noqa: E402

from hessiod.backends.contract import Route  # noqa: E402
from hessiod.backends_mindspore import namespace  # noqa: E402
from hessiod.backends_mindspore.autodiff import MindSporeAutodiff  # noqa: E402
from hessiod.backends_mindspore.optimizers import OPTIMIZERS  # noqa: E402
from hessiod.backends_mindspore.processes import MindSporeProcesses  # noqa: E402
from hessiod.backends_mindspore.trainer import MindSporeTrainer  # noqa: E402

Kernel = Callable[..., Any]


def run(function: Kernel, arrays: Sequence[Tensor], scalars: Mapping[str, float]) -> tuple[Any, ...]:
    """Call a kernel op by op, with scalars as 0-d tensors of the arrays' dtype."""
    typed = {name: Tensor(value, arrays[0].dtype) for name, value in scalars.items()}
    result = function(namespace, *arrays, **typed)
    return tuple(result) if isinstance(result, tuple) else (result,)


def run_jit(function: Kernel, arrays: Sequence[Tensor], scalars: Mapping[str, float]) -> tuple[Any, ...]:
    """Call a kernel as one graph."""
    return run(ms.jit(function), arrays, scalars)


class MindSporeBackend:
    """See :class:`hessiod.backends.contract.Backend`."""

    name = "mindspore"
    namespace = namespace
    routes = (Route("eager", run, flushes=True), Route("jit", run_jit, flushes=True))
    dtypes = ("float32", "float64")
    optimizers = OPTIMIZERS
    autodiff = MindSporeAutodiff()
    processes = MindSporeProcesses()

    def versions(self) -> Mapping[str, str]:
        """MindSpore's version."""
        return {"mindspore": ms.__version__}

    def devices(self) -> tuple[str, ...]:
        """The device target of this process."""
        return (ms.get_context("device_target").lower(),)

    def from_numpy(self, array: np.ndarray) -> Tensor:
        """A tensor with a copy of the values."""
        return Tensor(array)

    def to_numpy(self, array: Any) -> np.ndarray:
        """The values of a tensor."""
        return array.asnumpy()

    def trainer(self, **arguments: Any) -> MindSporeTrainer:
        """A network and an optimizer."""
        return MindSporeTrainer(**arguments)


BACKEND = MindSporeBackend()
