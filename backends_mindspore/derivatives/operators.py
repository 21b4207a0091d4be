"""Which operators a net is made of, and where they stand, as MindSpore's own front end sees it."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from mindspore import nn
from mindspore.graph.api import _JitExecutor
from mindspore.train.anf_ir_pb2 import ModelProto

STRUCTURE = frozenset(
    ("Load", "Depend", "UpdateState", "MakeTuple", "TupleGetItem", "MakeList", "ListGetItem", "Return", "Partial")
)
"""Nodes of a graph that hold it together and compute nothing."""


class Operator(NamedTuple):
    """An operator by the name that MindSpore's graphs give it, and its place: attribute names joined by dots.

    ``cured`` says that it stands within a replacement of ours, ``overwritten`` that it writes, in place, to an operand
    that its derivative reads.
    """

    name: str
    place: str
    cured: bool = False
    overwritten: bool = False


def operator_at(name: str, scope: str, overwritten: bool = False) -> Operator:
    """An operator at a scope; of ``Default/forward-Net/blocks-CellList/0-Block`` we keep ``blocks.0``.

    >>> operator_at("Tanh", "Default/forward-Net/blocks-CellList/0-Block")
    Operator(name='Tanh', place='blocks.0', cured=False, overwritten=False)
    """
    steps = [step.rpartition("-") for step in scope.split("/")[1:]]
    names = [attribute for attribute, _, _ in steps if attribute not in ("", "forward")]
    return Operator(name, ".".join(names), any(kind.startswith("Cured") for _, _, kind in steps), overwritten)


def operators(cell: nn.Cell, *inputs: Any) -> tuple[Operator, ...]:
    """The operators of a Cell's traced graph, each place once, in the order of the graph.

    Only the front end runs: types and shapes are inferred, nothing is built for the device.
    """
    executor = _JitExecutor(inspect.unwrap(type(cell).construct), time.time_ns(), None, cell)
    os.environ["MS_DEV_PRECOMPILE_ONLY"] = "1"
    try:
        phase = executor.compile("construct", *inputs)
    finally:
        del os.environ["MS_DEV_PRECOMPILE_ONLY"]
    graph = executor._graph_executor.get_func_graph_proto(phase, "anf_ir", False)
    model = ModelProto()
    model.ParseFromString(graph)
    nodes = {node.name: node for node in model.graph.node}
    constants = {constant.key: constant.value for constant in model.graph.const_vals}
    found = [operator_at(node.op_type, node.scope, overwrites(node, nodes, constants)) for node in nodes.values()]
    return tuple(dict.fromkeys(one for one in found if one.name not in STRUCTURE))


def overwrites(node: Any, nodes: Mapping[str, Any], constants: Mapping[str, Any]) -> bool:
    """Whether this is a BatchNorm that trains and may find its weight where it writes its moving variance.

    That is so if both are one tensor, or if both are computed from constants alone: equal ones become one tensor.
    """
    if node.op_type != "BatchNorm":
        return False
    weight, variance, training = (node.input[place].name for place in (1, 4, 5))
    if training in constants and not constants[training].bool_val:
        return False
    return weight == variance or all(
        name in nodes and not leaves(name, nodes, constants) for name in (weight, variance)
    )


def leaves(name: str, nodes: Mapping[str, Any], constants: Mapping[str, Any]) -> set[str]:
    """The inputs and Parameters that a value is computed from."""
    if name not in nodes:
        return set() if name in constants else {name}
    return {leaf for operand in nodes[name].input for leaf in leaves(operand.name, nodes, constants)}
