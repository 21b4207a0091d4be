"""The torch backend, as the registry and the conformance suite see it."""

from __future__ import annotations

from hessiod.backends.registry import require

require("torch", extra="torch")

from collections.abc import Callable, Mapping, Sequence  # noqa: E402
from copy import copy  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402

from hessiod.backends.contract import HALF_PRECISION, STORED, Route  # noqa: E402
from hessiod.backends.kernels import offered, route  # noqa: E402
from hessiod.backends_torch import namespace  # noqa: E402
from hessiod.backends_torch.autodiff import TorchAutodiff  # noqa: E402
from hessiod.backends_torch.op_by_op import eagerly  # noqa: E402
from hessiod.backends_torch.optimizers import OPTIMIZERS  # noqa: E402
from hessiod.backends_torch.precision import widened  # noqa: E402
from hessiod.backends_torch.processes import TorchProcesses  # noqa: E402
from hessiod.backends_torch.trainer import TorchTrainer  # noqa: E402
from hessiod.core.rule import Kernel  # noqa: E402

Function = Callable[..., Any]


def run(function: Function, arrays: Sequence[torch.Tensor], scalars: Mapping[str, Any]) -> tuple[Any, ...]:
    """Call a kernel op by op; torch rounds each Python scalar once, to the tensors' dtype."""
    with torch.no_grad():
        result = function(namespace, *arrays, **scalars)
    return tuple(result) if isinstance(result, tuple) else (result,)


def run_compiled(function: Function, arrays: Sequence[torch.Tensor], scalars: Mapping[str, float]) -> tuple[Any, ...]:
    """Call a kernel through ``torch.compile``, with the scalars as 0-d tensors so that none of them recompiles."""
    dtype, device = arrays[0].dtype, arrays[0].device
    typed = {name: torch.tensor(value, dtype=dtype, device=device) for name, value in scalars.items()}
    return run(torch.compile(function, fullgraph=True, dynamic=False), arrays, typed)


def run_kernels(function: Function, arrays: Sequence[torch.Tensor], scalars: Mapping[str, float]) -> tuple[Any, ...]:
    """Call a kernel as the C++ that optimizer steps on the CPU run."""
    found = route.run(function, [array.detach().cpu().numpy() for array in arrays], scalars)
    return tuple(map(torch.from_numpy, found))


def in_memory(array: torch.Tensor, name: str, dtype: str) -> torch.Tensor:
    """A copy with the same strides, in half precision if users give it so."""
    kept = getattr(torch, dtype) if name in STORED else array.dtype
    return torch.empty_strided(array.shape, array.stride(), dtype=kept, device=array.device).copy_(array)


def run_half(
    kernel: Kernel, arrays: Mapping[str, torch.Tensor], values: Mapping[str, float], dtype: str
) -> tuple[Any, ...]:
    """Take a step op by op, as optimizers do for parameters that no compiled kernel takes."""
    kept = {name: in_memory(array, name, dtype) for name, array in arrays.items()}
    with torch.no_grad():
        eagerly((kernel,), kept, values)
    return tuple(widened(kept[name]) for name in kernel.results)


def run_half_kernels(
    kernel: Kernel, arrays: Mapping[str, torch.Tensor], values: Mapping[str, float], dtype: str
) -> tuple[Any, ...]:
    """Take a step in the C++ that optimizers run, on the tensors' own memory."""
    kept = {name: in_memory(array.contiguous(), name, dtype) for name, array in arrays.items()}
    addresses = {name: tensor.data_ptr() for name, tensor in kept.items()}
    route.move((kernel,), addresses, kept[kernel.operands[0]].numel(), values, dtype)
    return tuple(widened(kept[name]) for name in kernel.results)


HOST_ROUTES = [Route("kernels", run_kernels, compiles=True, half=run_half_kernels)] * offered()


class TorchBackend:
    """See :class:`hessiod.backends.contract.Backend`; on the host, or :meth:`on` an accelerator."""

    name = "torch"
    namespace = namespace
    routes = (
        Route("eager", run, half=run_half),
        Route("compiled", run_compiled, contracts=True, compiles=True, specializes=True),
        *HOST_ROUTES,
    )
    dtypes = ("float32", "float64", *HALF_PRECISION)
    optimizers = OPTIMIZERS
    autodiff = TorchAutodiff()
    processes = TorchProcesses()
    device = "cpu"

    def on(self, device: str) -> TorchBackend:
        """The same on an accelerator, such as "cuda:0", where the host's generated C++ does not run."""
        moved = copy(self)
        moved.device, moved.processes = device, TorchProcesses(device)
        if device != "cpu":
            moved.routes = tuple(way for way in self.routes if way not in HOST_ROUTES)
        return moved

    def versions(self) -> Mapping[str, str]:
        """Torch's version, and CUDA's where torch was built with it."""
        return {"torch": torch.__version__} | ({"cuda": torch.version.cuda} if torch.version.cuda else {})

    def devices(self) -> tuple[str, ...]:
        """The host and every accelerator that torch sees; its own is the first."""
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        found = [f"{accelerator}:{n}" for n in range(torch.accelerator.device_count())] if accelerator else []
        return (self.device, *(device for device in ("cpu", *found) if device != self.device))

    def from_numpy(self, array: np.ndarray) -> torch.Tensor:
        """A tensor on the backend's device."""
        return torch.tensor(array, device=self.device)

    def to_numpy(self, array: Any) -> np.ndarray:
        """The values of a tensor."""
        return array.detach().cpu().numpy()

    def trainer(self, **arguments: Any) -> TorchTrainer:
        """A network and an optimizer."""
        return TorchTrainer(**arguments, device=self.device)


BACKEND = TorchBackend()
