"""The table of what each parameter of a net gets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mindspore import Parameter

from hessiod.backends.kronecker.plan import Plan, Row, describe
from hessiod.backends_mindspore.kronecker.layers import Layer


def make_plan(
    params: Iterable[Parameter],
    layers: Sequence[Layer],
    reasons: Mapping[str, str],
    method: str,
    fallback: str,
    block: int | None,
) -> Plan:
    """The plan of a net's trained parameters."""
    covered = {id(param): layer for layer in layers for param in layer.params}
    rows = []
    for param in params:
        layer = covered.get(id(param))
        treatment, detail = (fallback, reasons[param.name]) if layer is None else (method, describe(layer, block))
        rows.append(Row(param.name, tuple(param.shape), treatment, detail))
    return Plan(rows)
