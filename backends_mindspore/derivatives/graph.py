"""A graph over a user's forward: looked at before it runs, traced under the cures, and without a trace left."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from hessiod.backends_mindspore.derivatives import spot_check
from hessiod.backends_mindspore.derivatives.cells import Whole
from hessiod.backends_mindspore.derivatives.certificate import uncertified as nobody_measured
from hessiod.backends_mindspore.derivatives.operators import operators
from hessiod.backends_mindspore.derivatives.tracing import cured
from hessiod.core.errors import InvalidArgument

KEPT = 32
"""So many graphs stay compiled; the one that was used the longest ago goes first."""

Key = tuple[Any, ...]


class Graph:
    """One kind of graph over one forward and its weights, compiled once for each shape and training mode of inputs.

    ``make`` builds the Cell. ``order`` says which derivative the operators have to have right.
    """

    def __init__(
        self,
        make: Callable[[Any, ParameterTuple], nn.Cell],
        forward: Callable[..., Any],
        params: Sequence[Parameter],
        order: int,
        uncertified: str,
    ) -> None:
        self.make, self.forward, self.weights = make, forward, ParameterTuple(params)
        self.order, self.uncertified = order, uncertified
        self.cells: dict[Key, nn.Cell] = {}
        self.modes_of: tuple[nn.Cell, ...] = tuple(cells_of(forward))
        self.buffers: dict[Key, tuple[Parameter, ...]] = {}

    def __call__(self, leading: tuple[Any, ...], inputs: tuple[Any, ...]) -> Any:
        """The graph's results for leading arguments of ours and the user's inputs."""
        with cured():
            shapes = tuple(signature(value) for value in inputs)
            if (shapes, self.modes()) not in self.buffers:
                self.look(shapes, inputs)
            modes = self.modes()
            if modes not in self.cells:
                self.cells[modes] = self.make(self.forward, self.weights)
            with kept(self.buffers[shapes, modes]):
                return self.cells[modes](*leading, *inputs)

    def modes(self) -> Key:
        """Which of the forward's Cells are training: another answer is another graph."""
        return tuple(cell.training for cell in self.modes_of)

    def look(self, shapes: Key, inputs: tuple[Any, ...]) -> None:
        """Refuse operators that are known to be wrong, doubt unknown ones, and note what a run may change."""
        with cured() as trace:
            found = operators(Whole(self.forward), *inputs)
        self.modes_of = tuple({id(cell): cell for cell in (*self.modes_of, *trace.met_cells())}.values())
        weights = {id(weight) for weight in self.weights}
        buffers = tuple(param for param in trace.met_parameters() if id(param) not in weights)
        unknown = nobody_measured(found, self.order)
        if unknown and self.uncertified == "refuse":
            raise spot_check.unknown(unknown)
        if unknown and self.uncertified == "check":
            with kept(buffers):
                spot_check.agree(self.forward, self.weights, inputs, self.order, unknown)
        self.buffers[shapes, self.modes()] = buffers


def cells_of(forward: Any) -> Iterator[nn.Cell]:
    """A Cell and those within it; none for a function."""
    if isinstance(forward, nn.Cell):
        yield from (cell for _, cell in forward.cells_and_names())


def signature(value: Any) -> Any:
    """What a graph depends on in an input: a tensor's shape and dtype, or another thing's value."""
    if isinstance(value, Tensor):
        return value.shape, str(value.dtype)
    if isinstance(value, tuple | list):
        return tuple(signature(part) for part in value)
    return value


@contextmanager
def kept(params: Sequence[Parameter]) -> Iterator[None]:
    """Put parameters back afterwards, by assignments that graphs which have run see too."""
    before = [param.copy() for param in params]
    try:
        yield
    finally:
        for param, value in zip(params, before, strict=True):
            ops.assign(param, value)


GRAPHS: OrderedDict[Key, Graph] = OrderedDict()


def graph_of(
    kind: Callable[..., nn.Cell],
    forward: Callable[..., Any],
    params: Sequence[Parameter],
    order: int,
    uncertified: str,
    **settings: Any,
) -> Graph:
    """The graph for a forward, its weights and settings: the same one at every call."""
    if uncertified not in ("check", "allow", "refuse"):
        raise InvalidArgument(f"uncertified: found {uncertified!r}, expected 'check', 'allow' or 'refuse'")
    key = (kind, forward, tuple(map(id, params)), order, uncertified, tuple(settings.items()))
    if key not in GRAPHS:

        def make(forward: Any, weights: ParameterTuple) -> nn.Cell:
            return kind(forward, weights, **settings)

        GRAPHS[key] = Graph(make, forward, params, order, uncertified)
    GRAPHS.move_to_end(key)
    while len(GRAPHS) > KEPT:
        GRAPHS.popitem(last=False)
    return GRAPHS[key]
