"""The table of what each parameter of a model gets."""

from __future__ import annotations

from torch import Tensor

from hessiod.backends.kronecker.plan import Plan, Row, describe
from hessiod.backends_torch.kronecker.discover import AnyLayer


def make_plan(
    names: dict[Tensor, str],
    layers: list[AnyLayer],
    reasons: dict[str, str],
    method: str,
    fallback: str,
    block: int | None,
) -> Plan:
    """The plan of a model's trained parameters."""
    covered = {param: layer for layer in layers for param in layer.params}
    rows = []
    for param, name in names.items():
        if param in covered:
            rows.append(Row(name, tuple(param.shape), method, describe(covered[param], block)))
        elif param.requires_grad and name in reasons:
            rows.append(Row(name, tuple(param.shape), fallback, reasons[name]))
    return Plan(rows)
