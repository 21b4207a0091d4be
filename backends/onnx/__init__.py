"""The ONNX backend: a witness that runs every kernel from its exported graph, in runtimes that know nothing of hessiod.

It has no arrays of its own, no functions to call one by one and no autodiff: kernels are whole graphs.
"""

from __future__ import annotations

from hessiod.backends.registry import require

require("onnx", extra="onnx")

from collections.abc import Mapping  # noqa: E402
from importlib.metadata import version  # noqa: E402

from hessiod.backends.contract import HALF_PRECISION  # noqa: E402
from hessiod.backends.numpy import NumpyBackend  # noqa: E402
from hessiod.backends.onnx.export import DOMAIN, DOMAIN_VERSION, OPSET  # noqa: E402
from hessiod.backends.onnx.runtimes import routes  # noqa: E402


class OnnxBackend(NumpyBackend):
    """See :class:`hessiod.backends.contract.Backend`; its arrays are numpy's."""

    name = "onnx"
    namespace = None
    routes = routes()
    dtypes = ("float32", "float64", *HALF_PRECISION)

    def versions(self) -> Mapping[str, str]:
        """Of onnx, of the runtimes, and of the operator sets that models state."""
        packages = ["onnx"] + ["onnxruntime"] * any(route.name == "onnxruntime" for route in self.routes)
        return {name: version(name) for name in packages} | {"opset": str(OPSET), DOMAIN: str(DOMAIN_VERSION)}


BACKEND = OnnxBackend()
