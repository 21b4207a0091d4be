"""The table of what each parameter gets."""

from __future__ import annotations

from typing import Any, NamedTuple

from hessiod.core.kronecker.inverses import block_bounds


class Row(NamedTuple):
    """One parameter: its name and shape, the rule that moves it, and how its layer is factored or why it is not."""

    parameter: str
    shape: tuple[int, ...]
    treatment: str
    detail: str


class Plan(tuple[Row, ...]):
    """Rows in the order of the model's parameters; ``str`` is a table.

    >>> print(Plan([Row("weight", (2, 3), "KFAC", "linear, A 3 x 3, G 2 x 2"), Row("scale", (1,), "adamw", "alone")]))
    parameter  shape  treatment  detail
    weight     2 x 3  KFAC       linear, A 3 x 3, G 2 x 2
    scale      1      adamw      alone
    """

    def __str__(self) -> str:
        lines = [("parameter", "shape", "treatment", "detail")]
        lines += [(row.parameter, sizes(row.shape), row.treatment, row.detail) for row in self]
        widths = [max(len(line[column]) for line in lines) for column in range(3)]
        padded = ([cell.ljust(width) for cell, width in zip(line, [*widths, 0], strict=True)] for line in lines)
        return "\n".join("  ".join(line).rstrip() for line in padded)


def sizes(shape: tuple[int, ...]) -> str:
    """A shape as people write it."""
    return " x ".join(map(str, shape)) or "scalar"


def describe(layer: Any, block: int | None) -> str:
    """How a layer is factored."""
    shapes = layer.factor_shapes()
    if "f" in shapes:
        return f"{layer.kind}, {shapes['f'][1]} blocks of {len(layer.slots)} x {len(layer.slots)}"
    parts = [layer.kind]
    for name, shape in shapes.items():
        count = len(block_bounds(shape[-1], block)) if len(shape) > 1 else 1
        parts.append(f"{name.upper()} {sizes(shape)}" + (f" in {count} blocks" if count > 1 else ""))
    return ", ".join(parts)
