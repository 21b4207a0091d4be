"""All cases in PyTorch, by name."""

from collections.abc import Callable
from typing import Any

from hessiod.backends_torch.certification import (
    elementwise,
    layers,
    linear_algebra,
    losses,
    nets,
    reductions,
    shapes,
)

FAMILIES = (elementwise, reductions, shapes, linear_algebra, layers, losses, nets)
OPERATORS: dict[str, Callable[..., Any]] = {name: f for family in FAMILIES for name, f in family.CASES.items()}
