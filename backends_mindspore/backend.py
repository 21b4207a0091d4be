"""The MindSpore backend, as the registry and the conformance suite see it."""

from __future__ import annotations

from hessiod.backends.registry import require

require("mindspore", extra="mindspore")

from collections.abc import Callable, Mapping, Sequence  # noqa: E402
from functools import lru_cache, partial  # noqa: E402
from typing import Any  # noqa: E402

import mindspore as ms  # noqa: E402
import numpy as np  # noqa: E402
from mindspore import Tensor, ops  # noqa: E402

from hessiod.backends.contract import HALF_PRECISION, STORED, Route  # noqa: E402
from hessiod.backends_mindspore import namespace  # noqa: E402
from hessiod.backends_mindspore.autodiff import MindSporeAutodiff  # noqa: E402
from hessiod.backends_mindspore.optimizers import OPTIMIZERS  # noqa: E402
from hessiod.backends_mindspore.processes import MindSporeProcesses  # noqa: E402
from hessiod.backends_mindspore.traced import each, pairs  # noqa: E402
from hessiod.backends_mindspore.trainer import MindSporeTrainer  # noqa: E402
from hessiod.core.errors import BackendUnavailable  # noqa: E402
from hessiod.core.rule import Kernel  # noqa: E402

Function = Callable[..., Any]


def run(function: Function, arrays: Sequence[Tensor], scalars: Mapping[str, float]) -> tuple[Any, ...]:
    """Call a kernel op by op, with scalars as 0-d tensors of the arrays' dtype."""
    typed = {name: Tensor(value, arrays[0].dtype) for name, value in scalars.items()}
    result = function(namespace, *arrays, **typed)
    return tuple(result) if isinstance(result, tuple) else (result,)


@lru_cache(maxsize=8)
def jitted(function: Function) -> Function:
    """The function as graphs, one for each shape: each call of ``ms.jit`` compiles anew."""
    return ms.jit(function)


def run_jit(function: Function, arrays: Sequence[Tensor], scalars: Mapping[str, float]) -> tuple[Any, ...]:
    """Call a kernel as one graph."""
    return run(jitted(function), arrays, scalars)


def run_half(
    kernel: Kernel, arrays: Mapping[str, Tensor], values: Mapping[str, float], dtype: str, graph: bool = False
) -> tuple[Any, ...]:
    """Take a step as optimizers do: everything in float32, the parameter rounded as it is assigned."""
    kept = getattr(ms, dtype)
    if kept == ms.bfloat16 and ms.get_context("device_target") == "CPU":
        raise BackendUnavailable("MindSpore cannot assign bfloat16 on the CPU")
    given = [ops.cast(arrays[name], kept) if name in STORED else arrays[name] for name in kernel.operands]
    written = tuple(kept if name in STORED else ms.float32 for name in kernel.results)
    stepped = in_half(kernel.function, written)
    typed = {name: Tensor(value, ms.float32) for name, value in kernel.scalars_from(values).items()}
    found = (jitted(stepped) if graph else stepped)(namespace, *given, **typed)
    return tuple(ops.cast(result, ms.float32) for result in found)


@lru_cache(maxsize=8)
def in_half(function: Function, written: tuple[Any, ...]) -> Function:
    """The function on arrays of any precision, with results of the given dtypes; the same one each time."""

    def stepped(xp, *arrays, **scalars):
        results = function(xp, *each(ops.cast, arrays, ms.float32), **scalars)
        results = results if isinstance(results, tuple) else (results,)
        return pairs(ops.cast, results, written)

    return stepped


class MindSporeBackend:
    """See :class:`hessiod.backends.contract.Backend`."""

    name = "mindspore"
    namespace = namespace
    routes = (
        Route("eager", run, flushes=True, half=run_half),
        Route("jit", run_jit, flushes=True, half=partial(run_half, graph=True)),
    )
    dtypes = ("float32", "float64", *HALF_PRECISION)
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
