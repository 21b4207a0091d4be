"""The mindspore backend without importing mindspore."""

from __future__ import annotations

from hessiod.backends.card import Card, Name

CARD = Card(
    name="mindspore",
    framework="mindspore",
    extra="mindspore",
    distributions=("mindspore",),
    dtypes=("float32", "float64", "bfloat16", "float16"),
    routes=(Name("eager"), Name("jit")),
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
