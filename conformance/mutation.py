"""Is the suite sharp enough? ``python -m hessiod.conformance.mutation`` changes every kernel in turn and looks on.

Each operation of each kernel's graph is replaced by another one, the operands of quotients and differences change
places, and each scalar and constant is changed by a thousandth or its sign. Level 1 must fail on every mutant by its
``formula`` row: the changed kernel is not the published formula. Then the same with the Kronecker functions
(:mod:`hessiod.conformance.source_mutation`), on which level 3 must fail. A mutant that passes is printed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from hessiod.backends.contract import Route
from hessiod.backends.numpy import NumpyBackend, namespace
from hessiod.conformance.example import Subject
from hessiod.conformance.kernels import fixed, subjects
from hessiod.conformance.measure import measure
from hessiod.conformance.source_mutation import source_caught, source_mutants
from hessiod.core.trace import Graph, Node, evaluate, trace

OTHERS: Mapping[str, tuple[str, ...]] = {
    "add": ("sub",),
    "sub": ("add",),
    "mul": ("div", "add"),
    "div": ("mul",),
    "maximum": ("minimum",),
    "minimum": ("maximum",),
    "sum": ("mean",),
    "mean": ("sum",),
    "greater": ("less",),
    "less": ("greater",),
    "greater_equal": ("less",),
    "less_equal": ("greater",),
}
DROPPED = ("neg", "abs", "sqrt", "pow", "clip", "maximum", "minimum")
"""Operations that a mutant may leave out: their first operand takes their place."""
ORDERED = ("sub", "div")
NUDGE = 1.001


@dataclass(frozen=True)
class Mutant:
    """A kernel's graph with one change, and what the change is."""

    subject: Subject
    graph: Graph
    change: str
    scalar: str = ""
    factor: float = 1.0

    def __str__(self) -> str:
        return f"{self.subject.name}: {self.change}"

    def run(self, function: Any, arrays: Sequence[Any], scalars: Mapping[str, float]) -> tuple[Any, ...]:
        """A route that runs the mutant in the kernel's place."""
        dtype = arrays[0].dtype.type
        given = {name: dtype(value * (self.factor if name == self.scalar else 1.0)) for name, value in scalars.items()}
        with np.errstate(all="ignore"):
            found = evaluate(self.graph, namespace, arrays, given)
        return tuple(np.broadcast_to(array, arrays[0].shape).astype(dtype) for array in found)


def mutants(subject: Subject) -> Iterator[Mutant]:
    """Every mutant of a kernel."""
    graph = trace(subject.kernel)
    for place, node in enumerate(graph.nodes):
        for op in OTHERS.get(node.op, ()):
            yield Mutant(subject, changed(graph, place, replace(node, op=op)), f"{node.op} becomes {op} at {place}")
        if node.op in ORDERED:
            swapped = replace(node, inputs=node.inputs[::-1])
            yield Mutant(subject, changed(graph, place, swapped), f"{node.op} has its operands swapped at {place}")
        if node.op in DROPPED:
            yield Mutant(subject, dropped(graph, place), f"{node.op} is left out at {place}")
        if node.op == "constant" and node.value not in (0.0,):
            nudged = replace(node, value=node.value * NUDGE)
            yield Mutant(subject, changed(graph, place, nudged), f"the constant {node.value:g} is a thousandth larger")
    for name in graph.scalars:
        for factor, said in ((NUDGE, "a thousandth larger"), (-1.0, "of the other sign")):
            yield Mutant(subject, graph, f"{name} is {said}", name, factor)


def changed(graph: Graph, place: int, node: Node) -> Graph:
    """The graph with another node at a place."""
    return replace(graph, nodes=(*graph.nodes[:place], node, *graph.nodes[place + 1 :]))


def dropped(graph: Graph, place: int) -> Graph:
    """The graph in which a node's first operand takes its place."""
    instead = graph.nodes[place].inputs[0]
    nodes = tuple(
        replace(node, inputs=tuple(instead if given == place else given for given in node.inputs))
        for node in graph.nodes
    )
    results = tuple((name, instead if given == place else given) for name, given in graph.results)
    return replace(graph, nodes=nodes, results=results)


def caught(mutant: Mutant) -> bool:
    """Whether level 1 fails on a mutant."""
    backend = NumpyBackend()
    route = Route("mutant", mutant.run)
    backend.routes = (route,)
    try:
        verdicts = measure(backend, route, fixed(mutant.subject, "float32"))
    except (TypeError, ValueError):
        return True
    return verdicts["formula"].ratio > 1


def main() -> None:
    """Run every mutant; the exit status is 0 only if 95 of 100 are caught, of the kernels and of the functions."""
    console = Console()
    kernels = [mutant for subject in subjects() for mutant in mutants(subject)]
    shares = [
        share_caught("kernels, level 1", kernels, caught, console),
        share_caught("Kronecker functions, level 3", list(source_mutants()), source_caught, console),
    ]
    sys.exit(0 if min(shares) >= 0.95 else 1)


def share_caught(title: str, every: Sequence[Any], notices: Callable[[Any], bool], console: Console) -> float:
    """Which mutants pass, and the share of those that do not."""
    survivors = [mutant for mutant in track(every, title, console=console) if not notices(mutant)]
    for mutant in survivors:
        console.print(f"survives: {mutant}", highlight=False)
    share = 1 - len(survivors) / len(every)
    console.print(f"{title}: {len(every) - len(survivors)} of {len(every)} caught, {share:.1%}", highlight=False)
    return share


if __name__ == "__main__":
    main()
