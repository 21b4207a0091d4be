"""Triton from a program's graph: one launch over all tensors for each pass, and one for the sums between two passes.

Arrays come as a table of addresses. The order of every addition is written out: entries of a chunk are added in lanes,
lanes in pairs, chunks in lanes and in pairs again. Results therefore depend on sizes alone, not on how many programs
run at a time or how many threads one has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hessiod.backends.kernels.cpp import indented, single_places
from hessiod.core.errors import InvalidArgument
from hessiod.core.trace import Graph, Pass, Program, passes
from hessiod.core.trace.graph import Node

BLOCK = 1024
"""Entries that a program takes at a time; lanes of a sum."""
CHUNK = 4 * BLOCK
"""Entries of a program."""
LANES = 128
"""Chunks whose sums are added at a time."""

STORAGE = {"float32": "tl.float32", "float64": "tl.float64", "bfloat16": "tl.bfloat16", "float16": "tl.float16"}

EXPRESSIONS = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "tl.div_rn({0}, {1})",  # "/" is not rounded correctly in float32
    "neg": "{0} * -1.0",  # Triton's minus is a difference from zero, which makes 0 of 0 and not -0
    "greater": "{0} > {1}",
    "greater_equal": "{0} >= {1}",
    "less": "{0} < {1}",
    "less_equal": "{0} <= {1}",
    "abs": "tl.abs({0})",
    "sqrt": "tl.sqrt_rn({0})",
    # In double, where errors are far below float32's last digit. 0 to a positive power is 0 this way too.
    "pow": "tl.where({1} == 0.0, 1.0, tl.exp2(({1}).to(tl.float64) * tl.log2(({0}).to(tl.float64)))).to(tl.float32)",
    "exp": "tl.exp(({0}).to(tl.float64)).to(tl.float32)",
    "log": "tl.log(({0}).to(tl.float64)).to(tl.float32)",
    "cos": "tl.cos(({0}).to(tl.float64)).to(tl.float32)",
    "sin": "tl.sin(({0}).to(tl.float64)).to(tl.float32)",
    "maximum": "tl.where({0} > {1}, {0}, {1})",
    "minimum": "tl.where({0} < {1}, {0}, {1})",
}
DOUBLE = {"div": "{0} / {1}", "sqrt": "tl.sqrt({0})"}
"""What is written otherwise in float64."""
INEXACT = ("pow", "exp", "log", "cos", "sin")
"""What has no counterpart of known accuracy in float64."""


def source(program: Program, dtypes: Mapping[str, str]) -> str:
    """A module: ``pass_0``, and for programs with sums ``total_0``, ``pass_1`` and so on.

    ``dtypes`` are those of "param", "grad" and "estimate" in memory, as for C++ (:mod:`hessiod.backends.kernels.cpp`).
    """
    graph, working = program.graph, "float64" if dtypes["param"] == "float64" else "float32"
    found = sorted({node.op for node in graph.nodes} & set(INEXACT))
    if working == "float64" and found:
        raise InvalidArgument(f"a Triton kernel in float64: found {', '.join(found)}, whose accuracy there is unknown")
    sweeps, parts = passes(graph), ["import triton\nimport triton.language as tl\n"]
    for number, sweep in enumerate(sweeps):
        parts.append(pass_function(number, sweep, program, dtypes, working))
        if sweep.sums:
            parts.append(total_function(number, sweeps, graph, working))
    return "\n".join(parts)


def pass_function(number: int, sweep: Pass, program: Program, dtypes: Mapping[str, str], working: str) -> str:
    """The kernel of one pass."""
    graph, used = program.graph, {program.graph.nodes[place].name for place in sweep.loads} | dict(sweep.stores).keys()
    lines = [*scalar_loads(graph), *single_loads(graph, single_places(graph), before=sweep_singles(graph, number))]
    for place, name in enumerate(program.operands):
        if name in used:
            storage = STORAGE[dtypes.get(name, working)]
            address = f"tl.load(table + tensor * {len(program.operands)} + {place})"
            lines.append(f"p_{name} = tl.multiple_of({address}.to(tl.pointer_type({storage})), ALIGNED)")
    lines += [f"sum{index} = tl.full((BLOCK,), 0.0, tl.float64)" for index in range(len(sweep.sums))]
    lines += ["if begin + CHUNK <= size:", *block_loop(sweep, graph, dtypes, working, masked=False)]
    lines += ["else:", *block_loop(sweep, graph, dtypes, working, masked=True)]
    for index in range(len(sweep.sums)):
        lines += [*folded(f"sum{index}", BLOCK)]
        lines.append(f"tl.store(sums + task * {len(sweep.sums)} + {index} + tl.arange(0, 1), sum{index})")
    return PASS.format(number=number, lines=indented(lines, 4))


def block_loop(sweep: Pass, graph: Graph, dtypes: Mapping[str, str], working: str, masked: bool) -> list[str]:
    """The loop over a chunk's blocks. Without a mask the compiler knows that it can move many bytes at a time."""
    mask = ", mask=inside" if masked else ""
    lines = ["place = begin + start + tl.arange(0, BLOCK).to(tl.int64)"] + ["inside = place < size"] * masked
    for node in sweep.loads:
        lines.append(f"v{node} = tl.load(p_{graph.nodes[node].name} + place{mask}).to({STORAGE[working]})")
    lines += [f"v{place} = {expression(graph.nodes[place], graph, working)}" for place in sweep.body]
    for name, place in sweep.stores:
        lines.append(f"tl.store(p_{name} + place, v{place}.to({STORAGE[dtypes.get(name, working)]}){mask})")
    for index, place in enumerate(sweep.sums):
        value = f"v{graph.nodes[place].inputs[0]}.to(tl.float64)"
        lines.append(f"sum{index} += {f'tl.where(inside, {value}, 0.0)' if masked else value}")
    return ["    for start in range(0, CHUNK, BLOCK):", *[f"        {line}" for line in lines]]


def total_function(number: int, sweeps: Sequence[Pass], graph: Graph, working: str) -> str:
    """The kernel, a program a tensor, that adds the sums of a pass and works out the numbers that depend on them."""
    sweep, order = sweeps[number], single_places(graph)
    lines = [*scalar_loads(graph), *single_loads(graph, order, before=sweep_singles(graph, number))]
    lines += [f"sum{index} = tl.full((LANES,), 0.0, tl.float64)" for index in range(len(sweep.sums))]
    lines += ["for start in range(0, count, LANES):", "    lane = start + tl.arange(0, LANES)"]
    for index in range(len(sweep.sums)):
        address = f"sums + (first + lane) * {len(sweep.sums)} + {index}"
        lines.append(f"    sum{index} += tl.load({address}, mask=lane < count, other=0.0)")
    kind = STORAGE[working]
    for index, place in enumerate(sweep.sums):
        lines += [*folded(f"sum{index}", LANES), f"v{place} = sum{index}.to({kind})"]
        if graph.nodes[place].op == "mean":
            divisor = f"tl.where(size > 1, size, 1).to({kind})"
            lines.append(f"v{place} = {form_of('div', working).format(f'v{place}', divisor)}")
    lines += [f"v{place} = {expression(graph.nodes[place], graph, working)}" for place in sweep.singles]
    for place in (*sweep.sums, *sweep.singles):
        lines.append(f"tl.store(single + {order.index(place)} + tl.arange(0, 1), v{place})")
    return TOTAL.format(number=number, lines=indented(lines, 4))


def folded(name: str, width: int) -> list[str]:
    """Lines that add neighbouring lanes until one is left."""
    lines = []
    while width > 1:
        width //= 2
        lines.append(f"{name}_l, {name}_r = tl.split(tl.reshape({name}, ({width}, 2)))")
        lines.append(f"{name} = {name}_l + {name}_r")
    return lines


def scalar_loads(graph: Graph) -> list[str]:
    """The host's scalars that the graph needs."""
    return [
        f"v{place} = tl.load(row + {graph.scalars.index(node.name)})"
        for place, node in enumerate(graph.nodes)
        if node.op == "scalar"
    ]


def sweep_singles(graph: Graph, number: int) -> set[int]:
    """Places of the numbers that are known before a pass."""
    return {place for sweep in passes(graph)[:number] for place in (*sweep.sums, *sweep.singles)}


def single_loads(graph: Graph, order: Sequence[int], before: set[int]) -> list[str]:
    """Numbers that earlier passes worked out."""
    return [f"v{place} = tl.load(single + {index})" for index, place in enumerate(order) if place in before]


def expression(node: Node, graph: Graph, working: str) -> str:
    """A node's value from its inputs'; constants are written out."""
    names = [
        repr(graph.nodes[place].value) if graph.nodes[place].op == "constant" else f"v{place}" for place in node.inputs
    ]
    if node.op == "astype":
        return f"({names[0]}).to(tl.{working if node.dtype == 'float' else node.dtype})"
    if node.op == "clip":
        raised = EXPRESSIONS["maximum"].format(names[0], names[1])
        return f"tl.minimum({raised}, {names[2]})"
    return form_of(node.op, working).format(*names)


def form_of(op: str, working: str) -> str:
    """How an operation is written in the dtype that is calculated with."""
    return DOUBLE.get(op, EXPRESSIONS[op]) if working == "float64" else EXPRESSIONS[op]


PASS = """\
@triton.jit
def pass_{number}(tensors, chunks, sizes, go, table, rows, scalars, width, singles, known, sums,
           ALIGNED: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr):
    if tl.load(go) == 0:
        return
    task = tl.program_id(0).to(tl.int64)
    tensor = tl.load(tensors + task)
    size = tl.load(sizes + tensor)
    begin = tl.load(chunks + task) * CHUNK
    row = scalars + tl.load(rows + tensor) * width
    single = singles + tensor * known
{lines}
"""

TOTAL = """\
@triton.jit
def total_{number}(firsts, sizes, rows, scalars, width, singles, known, sums, LANES: tl.constexpr):
    tensor = tl.program_id(0).to(tl.int64)
    size = tl.load(sizes + tensor)
    first = tl.load(firsts + tensor)
    count = tl.load(firsts + tensor + 1) - first
    row = scalars + tl.load(rows + tensor) * width
    single = singles + tensor * known
{lines}
"""
