"""What MindSpore sees while a graph of ours is traced: cured operators in the place of those it differentiates wrongly.

MindSpore's parser asks one Python dictionary about every object that a traced source names, wherever the name stands:
in the user's Cells, in MindSpore's own, behind an alias. While :func:`cured` is active that dictionary answers with our
replacements. Nothing of the user's or of MindSpore's is changed, the trace of anybody else is not affected, and when
the block is left, by an error too, everything is as it was.

The dictionary and the registry of derivatives are private to MindSpore. The extra pins the release, and a test says
which of the two is gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from types import FunctionType
from typing import Any

import mindspore as ms
from mindspore import Parameter, nn, ops
from mindspore._c_expression import PrimitiveFunction_
from mindspore.graph._parse import parser
from mindspore.ops._grad_experimental.grad_base import bprop_getters

from hessiod.backends_mindspore.derivatives import cures

LOCK = RLock()


class Substitutions(dict):
    """The parser's own replacements, and ours; and what Parameters and Cells a trace has met.

    A replacement made for an operator's instance lives as long as the trace: MindSpore knows functions by address.
    """

    def __init__(self, own: dict[Any, Any]) -> None:
        super().__init__(own)
        on_cpu = ms.get_context("device_target") == "CPU"
        self.operators = cures.OPERATORS | (cures.FASTER if on_cpu else {})
        self.made: dict[int, tuple[Any, Any]] = {}
        self.parameters: dict[int, Parameter] = {}
        self.cells: dict[int, nn.Cell] = {}

    def met_parameters(self) -> tuple[Parameter, ...]:
        """The Parameters that the traced sources name."""
        return tuple(self.parameters.values())

    def met_cells(self) -> tuple[nn.Cell, ...]:
        """The Cells that the traced sources name."""
        return tuple(self.cells.values())

    def __contains__(self, thing: Any) -> bool:
        if isinstance(thing, Parameter):
            self.parameters[id(thing)] = thing
        if isinstance(thing, nn.Cell):
            self.cells[id(thing)] = thing
        return self.replacement(thing) is not None or super().__contains__(thing)

    def get(self, thing: Any, default: Any = None) -> Any:
        """The replacement of a thing."""
        replacement = self.replacement(thing)
        return super().get(thing, default) if replacement is None else replacement

    def replacement(self, thing: Any) -> Any:
        """What to trace for an operator or an operator's class; None to leave it."""
        if isinstance(thing, type):
            return self.operators.get(thing.__name__) if issubclass(thing, ops.Primitive) else None
        if isinstance(thing, FunctionType):
            return cures.FUNCTIONS.get(thing)
        if isinstance(thing, PrimitiveFunction_) and not isinstance(thing, ops.Primitive):
            return cures.CALLED.get(thing.name)
        if not isinstance(thing, ops.Primitive) or thing.name not in self.operators:
            return None
        if getattr(thing, "is_hessiods_own", False):
            return None
        if id(thing) not in self.made:
            self.made[id(thing)] = thing, self.operators[thing.name].like(thing)
        return self.made[id(thing)][1]


@contextmanager
def cured(active: bool = True) -> Iterator[Substitutions]:
    """Trace with replacements and with the second derivatives that MindSpore lacks; as it is if not ``active``."""
    with LOCK:
        own = parser.convert_object_map
        if not active:
            yield Substitutions(own)
            return
        parser.convert_object_map = substitutions = Substitutions(own)
        lacking = {name: make for name, make in cures.DERIVATIVES.items() if name not in bprop_getters}
        bprop_getters.update(lacking)
        try:
            yield substitutions
        finally:
            parser.convert_object_map = own
            for name in lacking:
                del bprop_getters[name]
