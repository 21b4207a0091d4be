"""A graph over a user's forward: looked at before it runs, traced under the cures, and without a trace left."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mindspore import Parameter, ParameterTuple, Tensor, mutable, nn, ops

from hessiod.backends_mindspore.derivatives import spot_check
from hessiod.backends_mindspore.derivatives.cells import Whole, WithLoss
from hessiod.backends_mindspore.derivatives.certificate import explained
from hessiod.backends_mindspore.derivatives.certificate import uncertified as nobody_measured
from hessiod.backends_mindspore.derivatives.operators import Operator, operators
from hessiod.backends_mindspore.derivatives.tracing import cured
from hessiod.core.errors import InvalidArgument

KEPT = 32
"""So many graphs stay compiled; the one that was used the longest ago goes first."""

Key = tuple[Any, ...]


class Examined:
    """A forward and its weights, looked at once for each shape of the inputs and training mode of its Cells.

    ``order`` says which derivative the operators have to have right, ``uncertified`` what to do about unknown ones.
    """

    def __init__(self, forward: Callable[..., Any], params: Sequence[Parameter], order: int, uncertified: str) -> None:
        if uncertified not in ("check", "allow", "refuse"):
            raise InvalidArgument(f"uncertified: found {uncertified!r}, expected 'check', 'allow' or 'refuse'")
        self.forward, self.weights = forward, ParameterTuple(params)
        self.order, self.uncertified = order, uncertified
        self.members: tuple[nn.Cell, ...] = tuple(cells_of(forward))
        self.buffers: dict[Key, tuple[Parameter, ...]] = {}
        self.found: tuple[Operator, ...] = ()

    def modes(self) -> Key:
        """Which of the forward's Cells are training: another answer is another graph."""
        return tuple(cell.training for cell in self.members)

    def look(self, inputs: tuple[Any, ...]) -> tuple[Parameter, ...]:
        """Refuse operators that are known to be wrong and doubt unknown ones; what a run may change besides weights."""
        shapes = tuple(signature(value) for value in inputs)
        if (shapes, self.modes()) not in self.buffers:
            with cured() as trace:
                self.found = operators(Whole(self.forward), *inputs)
            self.members = tuple({id(cell): cell for cell in (*self.members, *trace.met_cells())}.values())
            weights = {id(weight) for weight in self.weights}
            buffers = tuple(param for param in trace.met_parameters() if id(param) not in weights)
            if not self.judge(inputs, buffers):
                return buffers
            self.buffers[shapes, self.modes()] = buffers
        return self.buffers[shapes, self.modes()]

    def judge(self, inputs: tuple[Any, ...], buffers: tuple[Parameter, ...]) -> bool:
        """Raise for an operator whose derivative is not right; False if these inputs do not let us tell."""
        unknown = nobody_measured(self.found, self.order)
        if unknown and self.uncertified == "refuse":
            raise spot_check.unknown(unknown)
        if unknown and self.uncertified == "check":
            with kept(buffers), explained(self.found, self.order):
                return spot_check.agree(self.forward, self.weights, inputs, self.order, unknown)
        return True


class Graph(Examined):
    """One kind of graph over a forward, compiled once for each shape and training mode; ``make`` builds the Cell."""

    def __init__(self, make: Callable[[Any, ParameterTuple], nn.Cell], *arguments: Any) -> None:
        super().__init__(*arguments)
        self.make = make
        self.cells: dict[Key, nn.Cell] = {}

    def __call__(self, leading: tuple[Any, ...], inputs: tuple[Any, ...]) -> Any:
        """The graph's results for leading arguments of ours and the user's inputs."""
        buffers = self.look(inputs)
        modes = self.modes()
        if modes not in self.cells:
            self.cells[modes] = self.make(self.forward, self.weights)
        with cured(), kept(buffers), explained(self.found, self.order):
            return self.cells[modes](*leading, *[varying(value) for value in inputs])


class Watched(Examined):
    """A net and its loss within a training step of ours, which differentiates them twice in its own graph."""

    def __init__(self, net: nn.Cell, loss_fn: Any, params: Sequence[Parameter], uncertified: str) -> None:
        super().__init__(WithLoss(net, loss_fn), params, 2, uncertified)

    @contextmanager
    def step(self, inputs: tuple[Any, ...]) -> Iterator[None]:
        """Look at the net, then let the step be traced under the cures."""
        self.look(inputs)
        with cured(), explained(self.found, self.order):
            yield


def cells_of(forward: Any) -> Iterator[nn.Cell]:
    """A Cell and those within it; none for a function."""
    if isinstance(forward, nn.Cell):
        yield from (cell for _, cell in forward.cells_and_names())


def varying(value: Any) -> Any:
    """Tensors in a tuple, a list or a dict as variables of the graph, where MindSpore would take them as constants."""
    return mutable(value) if isinstance(value, tuple | list | dict) else value


def signature(value: Any) -> Any:
    """What a graph depends on in an input: a tensor's shape and dtype, or another thing's value."""
    if isinstance(value, Tensor):
        return value.shape, str(value.dtype)
    if isinstance(value, tuple | list):
        return tuple(signature(part) for part in value)
    if isinstance(value, dict):
        return tuple((name, signature(part)) for name, part in value.items())
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
    key = (kind, forward, tuple(map(id, params)), order, uncertified, tuple(settings.items()))
    if key not in GRAPHS:

        def make(forward: Any, weights: ParameterTuple) -> nn.Cell:
            return kind(forward, weights, **settings)

        GRAPHS[key] = Graph(make, forward, params, order, uncertified)
    GRAPHS.move_to_end(key)
    while len(GRAPHS) > KEPT:
        GRAPHS.popitem(last=False)
    return GRAPHS[key]
