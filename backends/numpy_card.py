"""The numpy backend without importing numpy."""

from __future__ import annotations

from hessiod.backends.card import Card, Name
from hessiod.backends.kernels import offered

CARD = Card(
    name="numpy",
    framework="numpy",
    extra="",  # always installed
    distributions=("numpy",),
    dtypes=("float32", "float64", "bfloat16", "float16"),
    routes=(Name("eager"), *[Name("kernels")] * offered()),
    optimizers=(),
)
