"""The torch backend without importing torch."""

from __future__ import annotations

from hessiod.backends.card import Card, Name

CARD = Card(
    name="torch",
    framework="torch",
    extra="torch",
    distributions=("torch",),
    dtypes=("float32", "float64"),
    routes=(Name("eager"), Name("compiled")),
    optimizers=(
        "sophia-g",
        "sophia-h",
        "adahessian",
        "apollo",
        "apollow",
        "diagonal-newton",
        "adamw",
        "sgd",
    ),
)
