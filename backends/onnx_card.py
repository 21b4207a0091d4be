"""The ONNX backend without importing onnx."""

from __future__ import annotations

from importlib.util import find_spec

from hessiod.backends.card import Card, Name

CARD = Card(
    name="onnx",
    framework="onnx",
    extra="onnx",
    distributions=("onnx", "onnxruntime"),
    dtypes=("float32", "float64", "bfloat16", "float16"),
    routes=(Name("reference"), *[Name("onnxruntime")] * bool(find_spec("onnxruntime"))),
    optimizers=(),
)
