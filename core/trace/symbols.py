"""Symbols that stand for arrays and scalars while a kernel runs, and write down what it does with them."""

from __future__ import annotations

from struct import pack, unpack
from typing import Any

from hessiod.core.errors import InvalidArgument
from hessiod.core.trace.graph import ARRAY, BOOL, COMPARISONS, FLOAT, MATRIX, REDUCTIONS, SCALAR, SINGLE, Node


class Tape:
    """The nodes so far. A node that is there already is not written twice: common expressions are shared."""

    def __init__(self, kernel: str) -> None:
        self.kernel = kernel
        self.nodes: list[Node] = []
        self.places: dict[Node, int] = {}

    def write(self, node: Node) -> Symbol:
        """A symbol for a node."""
        place = self.places.setdefault(node, len(self.nodes))
        if place == len(self.nodes):
            self.nodes.append(node)
        return Symbol(self, place)

    def symbol(self, value: Any) -> Symbol:
        """A symbol as it is, or one for a number; numbers in kernels are exact in float32, or backends differ."""
        if isinstance(value, Symbol):
            return value
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self.refusal(f"uses {value!r}", "arrays, scalars and numbers")
        if unpack("f", pack("f", value))[0] != value:
            raise self.refusal(f"has the constant {value!r}", "constants that float32 holds exactly")
        return self.write(Node("constant", (), SCALAR, FLOAT, value=float(value)))

    def apply(self, op: str, *values: Any) -> Symbol:
        """The symbol of an operation's result."""
        inputs = [self.symbol(value) for value in values]
        nodes = [self.nodes[given.place] for given in inputs]
        dtypes = {node.dtype for node in nodes if node.rank != SCALAR}
        ranks = {node.rank for node in nodes}
        if ranks == {SCALAR}:
            raise self.refusal(f"calculates {op} of scalars alone", "that in the scalars' function, in doubles")
        if len(dtypes) != 1 or (BOOL in dtypes and op != "astype"):
            raise self.refusal(f"calculates {op} of {', '.join(sorted(dtypes))}", "arrays of one floating dtype")
        whole = [rank for rank in (MATRIX, ARRAY) if rank in ranks and op not in REDUCTIONS]
        rank = whole[0] if whole else SINGLE
        dtype = BOOL if op in COMPARISONS else dtypes.pop()
        return self.write(Node(op, tuple(given.place for given in inputs), rank, dtype))

    def refusal(self, found: str, expected: str) -> InvalidArgument:
        """The error for something that has no place in a graph."""
        return InvalidArgument(f"kernel {self.kernel!r} {found}; expected {expected}")


class Symbol:
    """An array or a scalar of a kernel that is being traced."""

    __slots__ = ("place", "tape")
    __array_ufunc__ = None  # so that a numpy number on the left leaves the operation to this class

    def __init__(self, tape: Tape, place: int) -> None:
        self.tape, self.place = tape, place

    @property
    def dtype(self) -> str:
        """The node's."""
        return self.tape.nodes[self.place].dtype

    def __add__(self, other: Any) -> Symbol:
        return self.tape.apply("add", self, other)

    def __radd__(self, other: Any) -> Symbol:
        return self.tape.apply("add", other, self)

    def __sub__(self, other: Any) -> Symbol:
        return self.tape.apply("sub", self, other)

    def __rsub__(self, other: Any) -> Symbol:
        return self.tape.apply("sub", other, self)

    def __mul__(self, other: Any) -> Symbol:
        return self.tape.apply("mul", self, other)

    def __rmul__(self, other: Any) -> Symbol:
        return self.tape.apply("mul", other, self)

    def __truediv__(self, other: Any) -> Symbol:
        if self.tape.nodes[self.place].rank == ARRAY and self.tape.nodes[self.tape.symbol(other).place].rank == SCALAR:
            raise self.tape.refusal("divides an array by a scalar", "a product with the reciprocal, from the scalars")
        return self.tape.apply("div", self, other)

    def __rtruediv__(self, other: Any) -> Symbol:
        return self.tape.apply("div", other, self)

    def __neg__(self) -> Symbol:
        return self.tape.apply("neg", self)

    def __gt__(self, other: Any) -> Symbol:
        return self.tape.apply("greater", self, other)

    def __ge__(self, other: Any) -> Symbol:
        return self.tape.apply("greater_equal", self, other)

    def __lt__(self, other: Any) -> Symbol:
        return self.tape.apply("less", self, other)

    def __le__(self, other: Any) -> Symbol:
        return self.tape.apply("less_equal", self, other)

    def __bool__(self) -> bool:
        raise self.tape.refusal("branches on the value of an array or a scalar", "the same operations for all values")

    @property
    def shape(self) -> tuple[Extent]:
        """Of a matrix: a length that says nothing but whose it is, for ``shape[-1]`` of a square one."""
        if self.tape.nodes[self.place].rank != MATRIX:
            raise self.tape.refusal(
                "asks for .shape of an array", "operations entry by entry, and sums over all entries"
            )
        return (Extent(self),)

    def __getitem__(self, index: Any) -> Any:
        raise self.tape.refusal("takes a part of an array", "operations on whole arrays")

    def __getattr__(self, name: str) -> Any:
        raise self.tape.refusal(f"asks for .{name} of an array", "operations entry by entry, and sums over all entries")


class Extent:
    """The length of a square matrix, which ``xp.eye`` takes."""

    def __init__(self, matrix: Symbol) -> None:
        self.matrix = matrix
