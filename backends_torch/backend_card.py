"""The torch backend without importing torch."""

from __future__ import annotations

from hessiod.backends import kernels
from hessiod.backends.card import Card, Name

CARD = Card(
    name="torch",
    framework="torch",
    extra="torch",
    distributions=("torch",),
    dtypes=("float32", "float64", "bfloat16", "float16"),
    routes=(Name("eager"), Name("compiled"), *[Name("kernels")] * kernels.offered()),
    optimizers=(
        "sophia-g",
        "sophia-h",
        "adahessian",
        "apollo",
        "apollow",
        "diagonal-newton",
        "adamw",
        "sgd",
        "kfac",
        "spngd",
        "thor",
    ),
)
