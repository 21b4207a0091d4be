"""Which sweeps over memory compute a graph: one, and one more for each sum that another one has to wait for."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from hessiod.core.trace.graph import ARRAY, REDUCTIONS, SCALAR, Graph


@dataclass(frozen=True)
class Pass:
    """One sweep over a parameter's arrays, by places of nodes.

    ``loads`` are the operands it reads, ``body`` the operations on each entry, ``sums`` the reductions that are
    complete when it ends, ``singles`` the numbers that can be worked out then. ``stores`` pairs the names of arrays
    with the nodes written to them: in the last pass only, because earlier ones must leave the operands as they are.
    ``spared`` pairs loads with scalars: operands that reach the sums only times a scalar, and need not be read where it
    is zero. They would add zeros, or, where an entry is infinite, the NaN that the last pass gives that entry anyway.
    """

    loads: tuple[int, ...]
    body: tuple[int, ...]
    sums: tuple[int, ...]
    singles: tuple[int, ...]
    stores: tuple[tuple[str, int], ...]
    spared: tuple[tuple[int, int], ...] = ()


def levels(graph: Graph) -> list[int]:
    """For each node, how many passes must have ended before it can be evaluated."""
    found: list[int] = []
    for node in graph.nodes:
        wait = max((found[place] for place in node.inputs), default=0)
        found.append(wait + 1 if node.op in REDUCTIONS else wait)
    return found


def passes(graph: Graph) -> tuple[Pass, ...]:
    """The sweeps, in order. What several of them need is worked out again in each, not kept in memory.

    >>> from hessiod.core import RULES
    >>> from hessiod.core.trace import trace
    >>> len(passes(trace(RULES["sophia"].step)))
    1
    """
    level = levels(graph)
    stores = tuple((name, place) for name, place in graph.results if graph.nodes[place].rank == ARRAY)
    last = max(level)
    found = []
    for number in range(last + 1):
        final = number == last
        sums = tuple(
            place for place, node in enumerate(graph.nodes) if node.op in REDUCTIONS and level[place] == number + 1
        )
        singles = tuple(
            place
            for place, node in enumerate(graph.nodes)
            if node.rank not in (ARRAY, SCALAR) and node.op not in REDUCTIONS and level[place] == number + 1
        )
        wanted = [place for summed in sums for place in graph.nodes[summed].inputs]
        reached = _reached(graph, wanted + [place for _, place in stores if final])
        if reached:
            loads = tuple(place for place in reached if graph.nodes[place].op == "operand")
            body = tuple(place for place in reached if graph.nodes[place].op != "operand")
            spared = () if final else tuple(_spared(graph, loads, body, wanted))
            found.append(Pass(loads, body, sums, singles, stores if final else (), spared))
    return tuple(found)


def _reached(graph: Graph, places: list[int]) -> list[int]:
    """The array nodes that some places depend on, themselves included, in order."""
    reached, open_places = set[int](), list(places)
    while open_places:
        place = open_places.pop()
        if place not in reached and graph.nodes[place].rank == ARRAY:
            reached.add(place)
            open_places.extend(graph.nodes[place].inputs)
    return sorted(reached)


def _spared(
    graph: Graph, loads: tuple[int, ...], body: tuple[int, ...], summed: list[int]
) -> Iterator[tuple[int, int]]:
    """The loads whose only use is a product with a scalar, and that scalar."""
    for load in loads:
        users = [graph.nodes[place] for place in body if load in graph.nodes[place].inputs]
        if graph.nodes[load].name == "grad" or load in summed or len(users) != 1:  # a gradient's factor is never zero
            continue
        if users[0].op == "mul":
            yield from ((load, place) for place in users[0].inputs if graph.nodes[place].op == "scalar")


def traffic(graph: Graph, zeros: Collection[str] = ()) -> list[tuple[int, int]]:
    """Array entries that each sweep reads and writes for each entry of the parameter, if nothing stays in a cache.

    ``zeros`` names scalars that are zero.

    >>> from hessiod.core import RULES
    >>> from hessiod.core.trace import trace
    >>> {name: traffic(trace(RULES[name].step)) for name in ("sophia", "adamw", "sgd")}
    {'sophia': [(4, 2)], 'adamw': [(4, 3)], 'sgd': [(2, 1)]}
    """
    found = []
    for sweep in passes(graph):
        spared = [scalar for _, scalar in sweep.spared if graph.nodes[scalar].name in zeros]
        found.append((len(sweep.loads) - len(spared), len(sweep.stores)))
    return found
