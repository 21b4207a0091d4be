"""The graph of a kernel: what each operation reads, whether it is one number or an array, and of what type."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ARRAY, MATRIX, SINGLE, SCALAR = "array", "matrix", "single", "scalar"
"""Ranks: an array of the parameter's shape; a matrix, in the kernels of Kronecker methods; one number worked out from
arrays; a number given by the host."""

FLOAT, BOOL = "float", "bool"
"""Dtypes, besides the namespace's "float32", "float64" and "int64": that of the operands; a comparison's result."""

INFIX: Mapping[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "neg": operator.neg,
    "greater": operator.gt,
    "greater_equal": operator.ge,
    "less": operator.lt,
    "less_equal": operator.le,
}
"""Operations that kernels write with Python's operators."""

COMPARISONS = frozenset({"greater", "greater_equal", "less", "less_equal"})
REDUCTIONS = frozenset({"sum", "mean"})
FUNCTIONS = frozenset({"abs", "sqrt", "pow", "exp", "log", "cos", "sin", "clip", "maximum", "minimum", *REDUCTIONS})
"""Operations that kernels call on ``xp``, whose arguments are arrays and numbers. "astype" is one more."""
MATRIX_FUNCTIONS = frozenset({"matmul", "transpose", "frobenius"})
"""Further ones of matrices. "eye" is one more: its input has its shape."""


@dataclass(frozen=True)
class Node:
    """One operation. ``inputs`` are places of earlier nodes in the graph.

    ``op`` is "operand" and "scalar" (with ``name``), "constant" (with ``value``), "astype" (to ``dtype``), "eye", or
    one of :data:`INFIX`, :data:`FUNCTIONS` and :data:`MATRIX_FUNCTIONS`.
    """

    op: str
    inputs: tuple[int, ...]
    rank: str
    dtype: str
    name: str = ""
    value: float = 0.0


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which they can be evaluated; every one is needed for a result.

    ``results`` pairs the names of what is written with places of nodes.
    """

    nodes: tuple[Node, ...]
    operands: tuple[str, ...]
    scalars: tuple[str, ...]
    results: tuple[tuple[str, int], ...]

    @property
    def elementwise(self) -> bool:
        """Whether each entry of the results depends on the operands' entries at the same place only."""
        return not any(node.op in REDUCTIONS for node in self.nodes)

    @property
    def operations(self) -> int:
        """How many array operations there are: what an ULP budget counts, and one read and write each when eager."""
        leaves = ("operand", "scalar", "constant")
        return sum(node.rank == ARRAY and node.op not in leaves for node in self.nodes)


def evaluate(graph: Graph, xp: Any, arrays: Sequence[Any], scalars: Mapping[str, Any]) -> tuple[Any, ...]:
    """Run a graph on a backend's arrays, given in the order of ``graph.operands``."""
    given, values = dict(zip(graph.operands, arrays, strict=True)), list[Any]()
    for node in graph.nodes:
        inputs = [values[place] for place in node.inputs]
        if node.op == "operand":
            values.append(given[node.name])
        elif node.op == "scalar":
            values.append(scalars[node.name])
        elif node.op == "constant":
            values.append(node.value)
        elif node.op == "astype":
            values.append(xp.astype(*inputs, arrays[0].dtype if node.dtype == FLOAT else getattr(xp, node.dtype)))
        elif node.op == "eye":
            values.append(xp.eye(inputs[0].shape[-1], inputs[0]))
        else:
            function = INFIX[node.op] if node.op in INFIX else getattr(xp, node.op)
            values.append(function(*inputs))
    return tuple(values[place] for _, place in graph.results)
