"""A kernel as data: run it on symbols and get a small typed graph, from which fast code is generated.

    graph = trace(kernel)                   # operations in order, each with its inputs, rank and dtype
    evaluate(graph, xp, arrays, scalars)    # the kernel's results again, bit for bit
    passes(graph)                           # sweeps over memory that compute it, split at whole-tensor sums

A kernel's mathematics therefore stands once, in the rule; C++, Triton and ONNX are other ways of writing its graph.
"""

from hessiod.core.trace.graph import Graph, Node, evaluate
from hessiod.core.trace.passes import Pass, passes, traffic
from hessiod.core.trace.program import GRAD_SCALE, Program
from hessiod.core.trace.tracing import result_count, trace, trace_function

__all__ = [
    "GRAD_SCALE",
    "Graph",
    "Node",
    "Pass",
    "Program",
    "evaluate",
    "passes",
    "result_count",
    "trace",
    "trace_function",
    "traffic",
]
