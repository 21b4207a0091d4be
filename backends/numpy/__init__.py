"""The numpy backend: the reference for kernels. It has no autodiff, hence no optimizers and no trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from hessiod.backends.contract import HALF_PRECISION, STORED, Route
from hessiod.backends.half import packed, unpacked
from hessiod.backends.kernels import offered, route
from hessiod.backends.numpy import namespace
from hessiod.core.errors import BackendUnavailable
from hessiod.core.rule import Kernel


def run(function: Callable[..., Any], arrays: Sequence[np.ndarray], scalars: Mapping[str, float]) -> tuple[Any, ...]:
    """Call a kernel; scalars take the arrays' dtype, because a 0-d array would otherwise be widened to float64."""
    typed = {name: arrays[0].dtype.type(value) for name, value in scalars.items()}
    with np.errstate(all="ignore"):
        result = function(namespace, *arrays, **typed)
    return tuple(result) if isinstance(result, tuple) else (result,)


def run_half(
    kernel: Kernel, arrays: Mapping[str, np.ndarray], values: Mapping[str, float], dtype: str
) -> tuple[Any, ...]:
    """Call a kernel on float32 arrays, and round the parameter as if it were kept in half precision."""
    found = run(kernel.function, [arrays[name] for name in kernel.operands], kernel.scalars_from(values))
    ends = zip(kernel.results, map(np.asarray, found), strict=True)
    return tuple(unpacked(packed(array, dtype), dtype) if name in STORED else array for name, array in ends)


class NumpyBackend:
    """See :class:`hessiod.backends.contract.Backend`."""

    name = "numpy"
    namespace: ModuleType | None = namespace
    routes: tuple[Route, ...] = (
        Route("eager", run, half=run_half),
        *[Route("kernels", route.run, compiles=True, half=route.run_half)] * offered(),
    )
    dtypes: tuple[str, ...] = ("float32", "float64", *HALF_PRECISION)
    optimizers: Mapping[str, Callable[..., Any]] = {}

    def versions(self) -> Mapping[str, str]:
        """Numpy's version."""
        return {"numpy": np.__version__}

    def devices(self) -> tuple[str, ...]:
        """The host."""
        return ("cpu",)

    def from_numpy(self, array: np.ndarray) -> np.ndarray:
        """The array itself."""
        return array

    def to_numpy(self, array: Any) -> np.ndarray:
        """The array itself, or a scalar as a 0-d array."""
        return np.asarray(array)

    def trainer(self, **arguments: Any) -> Any:
        """Refused: training needs gradients."""
        raise BackendUnavailable(f"backend {self.name!r} has no autodiff; train with torch or mindspore")


BACKEND = NumpyBackend()
