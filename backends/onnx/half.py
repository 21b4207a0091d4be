"""A step in half precision as an ONNX model: casts around the call of the kernel's function.

As optimizers do it: the parameter, its gradient and its curvature estimate come in half precision; everything is worked
out in float32; the parameter is rounded once.
"""

from __future__ import annotations

from onnx import ModelProto, NodeProto, helper

from hessiod.backends.contract import STORED
from hessiod.backends.onnx.export import DOMAIN, TYPES, checked, described, function_of
from hessiod.core.rule import Kernel
from hessiod.core.trace import trace


def half_model(kernel: Kernel, dtype: str) -> ModelProto:
    """A kernel as a model of 1-D arrays, those of ``STORED`` in ``dtype``, all results in float32.

    >>> from hessiod.core import RULES
    >>> model = half_model(RULES["sgd"].step, "bfloat16")
    >>> [node.op_type for node in model.graph.node]
    ['Cast', 'Cast', 'sgd_kernel', 'Cast', 'Cast']
    """
    graph, name = trace(kernel), kernel.function.__name__
    function = function_of(graph, name)
    inputs = [described(operand, dtype if operand in STORED else "float32") for operand in graph.operands]
    inputs += [described(scalar, "float32", ()) for scalar in graph.scalars]
    stored = [operand for operand in graph.operands if operand in STORED]
    nodes = [cast(operand, f"{operand}_wide", "float32") for operand in stored]
    given = [f"{operand}_wide" if operand in STORED else operand for operand in graph.operands]
    nodes.append(helper.make_node(name, [*given, *graph.scalars], list(function.output), domain=DOMAIN))
    outputs = []
    for output, (result, _) in zip(function.output, graph.results, strict=True):
        if result in STORED:
            nodes += [
                cast(output, f"{result}_{dtype}", dtype),
                cast(f"{result}_{dtype}", f"{result}_rounded", "float32"),
            ]
        outputs.append(described(f"{result}_rounded" if result in STORED else output, "float32"))
    return checked(helper.make_graph(nodes, name, inputs, outputs), function)


def cast(given: str, made: str, dtype: str) -> NodeProto:
    """The node that puts an array into a dtype, to nearest, ties to even."""
    return helper.make_node("Cast", [given], [made], to=TYPES[dtype])
