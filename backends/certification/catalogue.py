"""All cases by name."""

from hessiod.backends.certification.case import Case
from hessiod.backends.certification.families import (
    elementwise,
    layers,
    linear_algebra,
    losses,
    nets,
    reductions,
    shapes,
)

FAMILIES = (elementwise, reductions, shapes, linear_algebra, layers, losses, nets)
CATALOGUE: dict[str, Case] = {case.name: case for family in FAMILIES for case in family.CASES}
