"""Running a kernel on symbols."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from inspect import Parameter, signature
from typing import Any

from hessiod.core.rule import Kernel
from hessiod.core.trace.graph import ARRAY, FLOAT, FUNCTIONS, MATRIX, MATRIX_FUNCTIONS, SCALAR, Graph, Node
from hessiod.core.trace.symbols import Extent, Symbol, Tape


class SymbolicNamespace:
    """The functions on ``xp`` that a graph can hold."""

    float32, float64, int64 = "float32", "float64", "int64"
    expected = "operations entry by entry, and sums over all entries"

    def __init__(self, tape: Tape) -> None:
        self.tape = tape

    def __getattr__(self, name: str) -> Callable[..., Symbol]:
        if name not in FUNCTIONS:
            raise self.tape.refusal(f"calls xp.{name}", self.expected)

        def record(*values: Any) -> Symbol:
            return self.tape.apply(name, *values)

        return record

    def astype(self, x: Symbol, dtype: str) -> Symbol:
        """The same values in another dtype."""
        node = self.tape.nodes[x.place]
        return x if node.dtype == dtype else self.tape.write(Node("astype", (x.place,), node.rank, dtype))


class MatrixNamespace(SymbolicNamespace):
    """The same with the functions of matrices."""

    expected = "operations entry by entry, matrix products, and sums over all entries"

    def __getattr__(self, name: str) -> Callable[..., Symbol]:
        if name in MATRIX_FUNCTIONS:
            return lambda *values: self.tape.apply(name, *values)
        return super().__getattr__(name)

    def eye(self, n: Any, like: Symbol) -> Symbol:
        """The identity of a square matrix's size."""
        if not isinstance(n, Extent) or n.matrix.place != like.place:
            raise self.tape.refusal("calls xp.eye with another length", "the length of the matrix that it is like")
        return self.tape.write(Node("eye", (like.place,), MATRIX, FLOAT))


def trace_function(
    function: Callable[..., Any],
    operands: Sequence[str],
    scalars: Sequence[str],
    results: Sequence[str],
    name: str = "",
    rank: str = ARRAY,
) -> Graph:
    """The graph of ``function(xp, *operands, **scalars)``, which returns the arrays that ``results`` names.

    ``rank`` is that of the operands: arrays of one shape, or matrices.

    >>> def halved(xp, x, *, half):
    ...     return (xp.abs(half * x),)
    >>> [node.op for node in trace_function(halved, ("x",), ("half",), ("y",)).nodes]
    ['operand', 'scalar', 'mul', 'abs']
    """
    tape, written = recorded(function, operands, scalars, name, rank)
    if len(written) != len(results):
        raise tape.refusal(f"returns {len(written)} results", f"{len(results)}: {', '.join(results)}")
    return _needed(tape.nodes, tuple(operands), tuple(scalars), tuple(zip(results, written, strict=True)))


def result_count(function: Callable[..., Any], operands: Sequence[str], scalars: Sequence[str]) -> int:
    """How many arrays ``function(xp, *operands, **scalars)`` returns.

    >>> result_count(lambda xp, x: (x, xp.abs(x)), ("x",), ())
    2
    """
    return len(recorded(function, operands, scalars)[1])


def recorded(
    function: Callable[..., Any], operands: Sequence[str], scalars: Sequence[str], name: str = "", rank: str = ARRAY
) -> tuple[Tape, list[int]]:
    """Everything that a function does with symbols, and the places of its results."""
    tape = Tape(name or function.__name__)
    arrays = [tape.write(Node("operand", (), rank, FLOAT, name=operand)) for operand in operands]
    numbers = {scalar: tape.write(Node("scalar", (), SCALAR, FLOAT, name=scalar)) for scalar in scalars}
    namespace = MatrixNamespace(tape) if rank == MATRIX else SymbolicNamespace(tape)
    found = function(namespace, *arrays, **numbers)
    return tape, [tape.symbol(result).place for result in (found if isinstance(found, tuple) else (found,))]


@cache
def trace(kernel: Kernel, rank: str = ARRAY) -> Graph:
    """The graph of a rule's kernel, or of a kernel of matrices.

    >>> from hessiod.core import RULES
    >>> graph = trace(RULES["sgd"].step)
    >>> [node.op for node in graph.nodes if node.inputs], graph.operations, graph.elementwise
    (['mul', 'add', 'mul', 'sub'], 4, True)
    """
    parameters = signature(kernel.function).parameters.values()
    scalars = [parameter.name for parameter in parameters if parameter.kind is Parameter.KEYWORD_ONLY]
    return trace_function(kernel.function, kernel.operands, scalars, kernel.results, rank=rank)


def _needed(
    nodes: Sequence[Node], operands: tuple[str, ...], scalars: tuple[str, ...], results: tuple[tuple[str, int], ...]
) -> Graph:
    """The graph without nodes that no result depends on, renumbered."""
    needed, open_places = set[int](), [place for _, place in results]
    while open_places:
        place = open_places.pop()
        if place not in needed:
            needed.add(place)
            open_places.extend(nodes[place].inputs)
    kept = sorted(needed)
    new = {place: number for number, place in enumerate(kept)}
    renumbered = [
        Node(node.op, tuple(new[place] for place in node.inputs), node.rank, node.dtype, node.name, node.value)
        for node in (nodes[place] for place in kept)
    ]
    return Graph(tuple(renumbered), operands, scalars, tuple((name, new[place]) for name, place in results))
