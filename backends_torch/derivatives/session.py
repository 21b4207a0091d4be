"""Runs of a user's closure that leave the training run as it was.

Under a session attention takes its math kernel (the fused ones have no second derivative), compiled functions run as
they were written (their backward cannot be differentiated), and DistributedDataParallel hands over to its module.
Random states are those at entry for *every* run, so that dropout is one fixed mask and all runs see one function;
they are put back at exit, as are the buffers of all modules that ran and the ``.grad`` of parameters.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from hessiod.backends_torch.derivatives.parallel import is_sharded, reshard, unwrapped
from hessiod.backends_torch.derivatives.places import Places
from hessiod.backends_torch.shards import is_split
from hessiod.core.errors import InvalidArgument


class Session(ExitStack):
    """A stretch of runs of closures over the same parameters.

    ``modules`` are those that ran, in order; ``wrappers`` the DistributedDataParallel ones among them.
    """

    def __init__(self, params: Sequence[Tensor]) -> None:
        super().__init__()
        self.params = list(params)
        self.modules: dict[nn.Module, None] = {}
        self.wrappers: list[nn.Module] = []
        self.places: Places | None = None

    def __enter__(self) -> Session:
        super().__enter__()
        self.random = random_states(self.params)
        self.callback(self._rewind)
        self.enter_context(torch.enable_grad())
        self.enter_context(sdpa_kernel(SDPBackend.MATH))
        self.enter_context(torch.compiler.set_stance("force_eager"))
        self.enter_context(unwrapped(self.wrappers))
        self._buffers: list[tuple[dict[str, Tensor | None], str, Tensor, Tensor]] = []
        self.callback(self._restore_buffers)
        self.callback(lambda: reshard(self.modules))
        self.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", "Using `torch.compile.module.` when there are global hooks")
        for hook in (register_module_forward_pre_hook(self._entered), register_module_forward_hook(self._left)):
            self.callback(hook.remove)
        return self

    def run(self, closure: Callable[[], Any]) -> Any:
        """What the closure returns, from the same random state and the same buffers each time."""
        self._rewind()
        self._restore_buffers()
        reshard(self.modules)
        torch.clear_autocast_cache()  # of weights that were moved since
        return closure()

    @contextmanager
    def recorded(self) -> Iterator[Places]:
        """Note which module makes which autograd node."""
        self.places = Places()
        try:
            yield self.places
        finally:
            self.places = None

    @property
    def sharded(self) -> nn.Module | None:
        """A module that ``fully_shard`` took over, if one ran."""
        return next(filter(is_sharded, self.modules), None)

    @property
    def split(self) -> nn.Module | None:
        """A module whose weights tensor parallelism has split, if one ran."""
        return next((m for m in self.modules if any(map(is_split, m.parameters(recurse=False)))), None)

    def _entered(self, module: nn.Module, _: Any) -> None:
        if self.places is not None:
            self.places.enter(module)
        if module not in self.modules:
            self.modules[module] = None
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    self._buffers.append((module._buffers, name, buffer, buffer.detach().clone()))

    def _left(self, module: nn.Module, _: Any, __: Any) -> None:
        if self.places is not None:
            self.places.leave(module)

    @torch.no_grad()
    def _restore_buffers(self) -> None:
        """All of them: batch norm's kernels move its statistics without counting up their version."""
        for owner, name, buffer, value in self._buffers:
            owner[name] = buffer
            with torch.autograd._unsafe_preserve_version_counter(buffer):  # type: ignore[attr-defined]
                buffer.copy_(value)

    def _rewind(self) -> None:
        for setter, state in self.random:
            setter(state)


def random_states(params: Iterable[Tensor]) -> list[tuple[Callable[[Tensor], None], Tensor]]:
    """How to put back the random state of the CPU and of the parameters' devices."""
    states: list[tuple[Callable[[Tensor], None], Tensor]] = [(torch.set_rng_state, torch.get_rng_state())]
    for device in sorted({param.device for param in params if param.device.type not in ("cpu", "meta")}, key=str):
        module = torch.get_device_module(device)
        states.append((partial(module.set_rng_state, device=device), module.get_rng_state(device)))
    return states


def checked_params(params: Any) -> list[Tensor]:
    """Leaf tensors of floating point, each once, that want gradients."""
    params = [params] if isinstance(params, Tensor) else list(params)
    if not params:
        raise InvalidArgument("params: found none, expected at least one parameter")
    for place, param in enumerate(params):
        if not isinstance(param, Tensor):
            raise InvalidArgument(f"params[{place}]: found {type(param).__name__}, expected a tensor")
        if not param.is_leaf or not param.requires_grad or not param.is_floating_point():
            kind = f"{'a leaf' if param.is_leaf else 'the result of an operation'}, requires_grad={param.requires_grad}"
            raise InvalidArgument(
                f"params[{place}]: found {param.dtype} that is {kind}, expected real leaves that require gradients, "
                "such as model.parameters()"
            )
    if len({id(param) for param in params}) < len(params):
        raise InvalidArgument("params: found one twice, expected each once")
    return params


def checked_vectors(params: Sequence[Tensor], vectors: Any) -> list[Tensor]:
    """One tensor a parameter, of its shape, dtype and device."""
    vectors = [vectors] if isinstance(vectors, Tensor) else list(vectors)
    if len(vectors) != len(params):
        raise InvalidArgument(f"vectors: found {len(vectors)}, expected one for each of {len(params)} params")
    for place, (param, vector) in enumerate(zip(params, vectors, strict=True)):
        found, expected = described(vector), described(param)
        if found != expected:
            raise InvalidArgument(f"vectors[{place}]: found {found}, expected {expected} like its parameter")
    return [vector.detach() for vector in vectors]


def described(value: Any) -> str:
    """A tensor's shape, dtype and device in words; another object's type."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{tuple(value.shape)} {value.dtype} on {value.device}"


def checked_closures(closure: Any) -> list[Callable[[], Any]]:
    """One function, or several for a batch in parts."""
    closures = [closure] if callable(closure) else list(closure) if isinstance(closure, (list, tuple)) else []
    if not closures or not all(map(callable, closures)):
        raise InvalidArgument(
            f"closure: found {type(closure).__name__}, expected a function without arguments, or a list of them"
        )
    return closures
