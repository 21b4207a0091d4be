"""A kernel's graph as an ONNX function, and as a model that calls it.

The function stands in the domain ``hessiod`` and takes arrays of any floating type: operands first, then scalars as 0-d
tensors of the same type. Every node of the graph is one ONNX node, so a runtime rounds where the kernel rounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from inspect import getsource
from types import MappingProxyType
from typing import Any

import onnx
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, checker, helper

from hessiod.core.kronecker.kernels import Axes, MatrixKernel
from hessiod.core.rule import Kernel
from hessiod.core.trace import Graph, Node, trace
from hessiod.core.trace.graph import MATRIX

DOMAIN, DOMAIN_VERSION, OPSET, IR_VERSION = "hessiod", 1, 18, 9
TYPES = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
}
ENTRIES = ("entries",)
"""The axes of an array that has as many entries as the parameter."""

OPERATORS = {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "neg": "Neg",
    "greater": "Greater",
    "greater_equal": "GreaterOrEqual",
    "less": "Less",
    "less_equal": "LessOrEqual",
    "abs": "Abs",
    "sqrt": "Sqrt",
    "pow": "Pow",
    "exp": "Exp",
    "log": "Log",
    "cos": "Cos",
    "sin": "Sin",
    "clip": "Clip",
    "maximum": "Max",
    "minimum": "Min",
    "matmul": "MatMul",
    "eye": "EyeLike",
}
"""Operations that are one ONNX operator with the same inputs."""


def function_of(graph: Graph, name: str, doc: str = "") -> FunctionProto:
    """The graph as a function named ``name``.

    >>> from hessiod.core import RULES
    >>> function = function_of(trace(RULES["sgd"].step), "sgd_step")
    >>> [node.op_type for node in function.node], list(function.input), list(function.output)
    (['Mul', 'Add', 'Mul', 'Sub', 'Identity'], ['param', 'grad', 'lr', 'decay'], ['param_out'])
    """
    names = [name_of(place, node) for place, node in enumerate(graph.nodes)]
    nodes = [made for place, node in enumerate(graph.nodes) for made in written(graph, place, node, names)]
    outputs = [f"{result}_out" for result, _ in graph.results]
    ends = zip(graph.results, outputs, strict=True)
    nodes += [helper.make_node("Identity", [names[place]], [output]) for (_, place), output in ends]
    inputs = [*graph.operands, *graph.scalars]
    opsets = [helper.make_opsetid("", OPSET)]
    function = helper.make_function(DOMAIN, name, inputs, outputs, nodes, opsets)
    function.doc_string = doc
    return function


def name_of(place: int, node: Node) -> str:
    """The name of a node's value."""
    return node.name if node.op in ("operand", "scalar") else f"{node.op}_{place}"


def written(graph: Graph, place: int, node: Node, names: list[str]) -> Iterator[NodeProto]:
    """The ONNX nodes of one node."""
    inputs, like = [names[given] for given in node.inputs], graph.operands[0]
    if node.op in ("operand", "scalar"):
        return
    if node.op == "constant":
        exact = helper.make_tensor("value", TensorProto.FLOAT, (), [node.value])
        yield helper.make_node("Constant", [], [f"{names[place]}_float"], value=exact)
        yield helper.make_node("CastLike", [f"{names[place]}_float", like], [names[place]])
    elif node.op == "astype":
        if node.dtype in TYPES:
            yield helper.make_node("Cast", inputs, [names[place]], to=TYPES[node.dtype])
        else:
            yield helper.make_node("CastLike", [*inputs, like], [names[place]])
    elif node.op == "sum":
        yield helper.make_node("ReduceSum", inputs, [names[place]], keepdims=0)
    elif node.op == "mean":
        yield from mean(inputs[0], names[place])
    elif node.op == "transpose":
        yield helper.make_node("Transpose", inputs, [names[place]], perm=[1, 0])
    elif node.op == "frobenius":
        yield from frobenius(inputs[0], names[place])
    else:
        yield helper.make_node(OPERATORS[node.op], inputs, [names[place]])


def mean(values: str, name: str) -> Iterator[NodeProto]:
    """The sum over the number of entries, which counts as 1 where there are none."""
    one = helper.make_tensor("value", TensorProto.INT64, (), [1])
    yield helper.make_node("ReduceSum", [values], [f"{name}_sum"], keepdims=0)
    yield helper.make_node("Size", [values], [f"{name}_size"])
    yield helper.make_node("Constant", [], [f"{name}_one"], value=one)
    yield helper.make_node("Max", [f"{name}_size", f"{name}_one"], [f"{name}_count"])
    yield helper.make_node("CastLike", [f"{name}_count", values], [f"{name}_divisor"])
    yield helper.make_node("Div", [f"{name}_sum", f"{name}_divisor"], [name])


def frobenius(matrix: str, name: str) -> Iterator[NodeProto]:
    """The root of the sum of squares, ``[1, 1]``."""
    yield helper.make_node("Mul", [matrix, matrix], [f"{name}_squares"])
    yield helper.make_node("ReduceSum", [f"{name}_squares"], [f"{name}_sum"], keepdims=1)
    yield helper.make_node("Sqrt", [f"{name}_sum"], [name])


def model_of(
    graph: Graph, name: str, dtype: str = "float32", doc: str = "", axes: Axes = MappingProxyType({})
) -> ModelProto:
    """A model of one node, the function's call, in one dtype.

    Its arrays are 1-D, but for those whose ``axes`` are given: a parameter of any shape is flattened, which no
    entry-by-entry operation and no sum over all entries can tell. (ONNX requires that a model states how many axes its
    inputs have.)
    """
    function = function_of(graph, name, doc)
    call = helper.make_node(name, list(function.input), list(function.output), domain=DOMAIN)
    inputs = [described(operand, dtype, axes.get(operand, ENTRIES)) for operand in graph.operands]
    inputs += [described(scalar, dtype, ()) for scalar in graph.scalars]
    results = zip(function.output, graph.results, strict=True)
    outputs = [described(output, dtype, axes.get(result, ENTRIES)) for output, (result, _) in results]
    return checked(helper.make_graph([call], name, inputs, outputs, doc_string=doc), function)


def described(name: str, dtype: str, axes: Sequence[Any] = ENTRIES) -> ValueInfoProto:
    """An input or an output: an array with as many entries as the parameter, or with other axes; none for a scalar."""
    return helper.make_tensor_value_info(name, TYPES[dtype], axes)


def checked(body: GraphProto, function: FunctionProto) -> ModelProto:
    """A model of a graph that calls a function; checked in full, types and shapes included."""
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
    model = helper.make_model(
        body, functions=[function], opset_imports=opsets, ir_version=IR_VERSION, producer_name="hessiod"
    )
    checker.check_model(model, full_check=True)
    return onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)


def kernel_model(kernel: Kernel, name: str, dtype: str = "float32") -> ModelProto:
    """A kernel as a model; its documentation says how the scalars come from hyperparameters, in doubles."""
    return model_of(trace(kernel), name, dtype, documentation(kernel))


def matrix_model(matrix: MatrixKernel, name: str, dtype: str = "float32") -> ModelProto:
    """A kernel of a Kronecker method as a model of single matrices, if it can be traced.

    >>> from hessiod.core.kronecker.kernels import KERNELS
    >>> model = matrix_model(KERNELS["kronecker.fisher-product"], "fisher_product")
    >>> [node.op_type for node in model.functions[0].node]
    ['MatMul', 'MatMul', 'Identity']
    """
    graph, axes = trace(matrix.kernel, MATRIX), {**matrix.operands, **matrix.results}
    return model_of(graph, name, dtype, documentation(matrix.kernel), axes)


def documentation(kernel: Kernel) -> str:
    """What the kernel calculates, and the function that its scalars come from."""
    return (
        f"{kernel.function.__doc__}\n\nScalars, worked out in float64 and rounded once:\n\n{getsource(kernel.scalars)}"
    )
