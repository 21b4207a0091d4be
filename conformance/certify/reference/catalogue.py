"""All cases in jax.numpy, by name."""

from hessiod.conformance.certify.reference import (
    elementwise,
    layers,
    linear_algebra,
    losses,
    nets,
    reductions,
    shapes,
)

FAMILIES = (elementwise, reductions, shapes, linear_algebra, layers, losses, nets)
OPERATORS = {name: operator for family in FAMILIES for name, operator in family.CASES.items()}
