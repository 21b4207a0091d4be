"""The ONNX backend: a witness that runs every kernel from its exported graph, in runtimes that know nothing of hessiod.

It has no arrays of its own, no functions to call one by one and no autodiff: kernels are whole graphs.
"""

from __future__ import annotations

from hessiod.backends.registry import require

require("onnx", extra="onnx")

from collections.abc import Callable, Mapping  # noqa: E402
from importlib.metadata import version  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402

from hessiod.backends.onnx.export import DOMAIN, DOMAIN_VERSION, OPSET  # noqa: E402
from hessiod.backends.onnx.runtimes import routes  # noqa: E402
from hessiod.core.errors import BackendUnavailable  # noqa: E402


class OnnxBackend:
    """See :class:`hessiod.backends.contract.Backend`."""

    name = "onnx"
    namespace = None
    routes = routes()
    dtypes = ("float32", "float64")
    optimizers: Mapping[str, Callable[..., Any]] = {}

    def versions(self) -> Mapping[str, str]:
        """Of onnx, of the runtimes, and of the operator sets that models state."""
        packages = ["onnx"] + ["onnxruntime"] * any(route.name == "onnxruntime" for route in self.routes)
        return {name: version(name) for name in packages} | {"opset": str(OPSET), DOMAIN: str(DOMAIN_VERSION)}

    def devices(self) -> tuple[str, ...]:
        """The host."""
        return ("cpu",)

    def from_numpy(self, array: np.ndarray) -> np.ndarray:
        """The array itself."""
        return array

    def to_numpy(self, array: Any) -> np.ndarray:
        """The array itself."""
        return np.asarray(array)

    def trainer(self, **arguments: Any) -> Any:
        """Refused: training needs gradients."""
        raise BackendUnavailable("backend 'onnx' has no autodiff; train with torch or mindspore")


BACKEND = OnnxBackend()
