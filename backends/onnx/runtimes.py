"""ONNX runtimes as routes: the reference evaluator always, onnxruntime where it is installed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from inspect import Parameter, signature
from typing import Any

import numpy as np
from onnx import ModelProto, helper
from onnx.reference import ReferenceEvaluator

from hessiod.backends.contract import STORED, Route
from hessiod.backends.half import packed
from hessiod.backends.onnx.export import TYPES, matrix_model, model_of
from hessiod.backends.onnx.half import half_model
from hessiod.core.kronecker.kernels import KERNELS
from hessiod.core.rule import Kernel
from hessiod.core.trace import trace_function

Function = Callable[..., Any]
Session = Callable[[dict[str, Any]], Any]
Feed = Callable[[np.ndarray, str], Any]

MATRICES = {matrix.kernel.function: matrix for matrix in KERNELS.values()}
"""Functions whose arrays keep their shapes."""


@cache
def model(function: Function, count: int, scalars: tuple[str, ...], results: int, dtype: str) -> ModelProto:
    """The model of a kernel's function; operands and results are named by their place where the kernel is unknown."""
    if function in MATRICES:
        return matrix_model(MATRICES[function], function.__name__, dtype)
    parameters = signature(function).parameters.values()
    operands = [p.name for p in parameters if p.kind is Parameter.POSITIONAL_OR_KEYWORD][1:]
    assert len(operands) == count
    graph = trace_function(function, operands, scalars, [f"result_{place}" for place in range(results)])
    return model_of(graph, function.__name__, dtype)


def results_of(function: Function, arrays: Sequence[np.ndarray], scalars: Mapping[str, float]) -> int:
    """How many arrays a kernel returns: run it on empty ones."""
    from hessiod.backends.numpy import run

    if function in MATRICES:
        return len(MATRICES[function].results)
    return len(run(function, [np.zeros(1, array.dtype) for array in arrays], scalars))


@cache
def reference_session(made: Callable[..., ModelProto], *key: Any) -> Session:
    """A model in onnx's own evaluator, which is numpy node by node."""
    evaluator = ReferenceEvaluator(made(*key))
    return lambda feeds: evaluator.run(None, feeds)


@cache
def onnxruntime_session(made: Callable[..., ModelProto], *key: Any) -> Session:
    """A model in onnxruntime on the CPU, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    content = made(*key).SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    outputs = [output.name for output in session.get_outputs()]

    def run(feeds: dict[str, Any]) -> list[np.ndarray]:
        if not any(isinstance(value, onnxruntime.OrtValue) for value in feeds.values()):
            return session.run(None, feeds)
        given = {name: as_value(value) for name, value in feeds.items()}
        return [value.numpy() for value in session.run_with_ort_values(outputs, given)]

    def as_value(value: Any) -> Any:
        return value if isinstance(value, onnxruntime.OrtValue) else onnxruntime.OrtValue.ortvalue_from_numpy(value)

    return run


def reference_feed(values: np.ndarray, dtype: str) -> np.ndarray:
    """float32 numbers in half precision, as onnx's evaluator takes them: of the dtype that stands for it in numpy."""
    return packed(values, dtype).view(helper.tensor_dtype_to_np_dtype(TYPES[dtype]))


def onnxruntime_feed(values: np.ndarray, dtype: str) -> Any:
    """The same as onnxruntime takes them: bits with a type."""
    from onnxruntime import OrtValue

    bits = packed(values, dtype).view(np.uint16)
    return OrtValue.ortvalue_from_numpy_with_onnx_type(bits, TYPES[dtype])


def half_runner(session_of: Callable[..., Session], feed: Feed) -> Callable[..., tuple[Any, ...]]:
    """The ``half`` of a route."""

    def run_half(
        kernel: Kernel, arrays: Mapping[str, np.ndarray], values: Mapping[str, float], dtype: str
    ) -> tuple[Any, ...]:
        (shape,) = {array.shape for array in arrays.values()}
        flat = {name: array.reshape(-1) for name, array in arrays.items()}
        feeds = {name: feed(array, dtype) if name in STORED else array for name, array in flat.items()}
        feeds |= {name: np.asarray(value, np.float32) for name, value in kernel.scalars_from(values).items()}
        with np.errstate(all="ignore"):
            found = session_of(half_model, kernel, dtype)(feeds)
        return tuple(array.reshape(shape) for array in found)

    return run_half


def runner(session_of: Callable[..., Session]) -> Callable[..., tuple[Any, ...]]:
    """The ``run`` of a route."""

    def run(function: Function, arrays: Sequence[np.ndarray], scalars: Mapping[str, float]) -> tuple[Any, ...]:
        dtype = arrays[0].dtype
        key = (function, len(arrays), tuple(scalars), results_of(function, arrays, scalars), dtype.name)
        graph = model(*key).graph
        shaped = arrays if function in MATRICES else [array.reshape(-1) for array in arrays]
        values = [*shaped, *(np.asarray(value, dtype) for value in scalars.values())]
        names = [given.name for given in graph.input]
        with np.errstate(all="ignore"):
            found = session_of(model, *key)(dict(zip(names, values, strict=True)))
        return tuple(found if function in MATRICES else (array.reshape(arrays[0].shape) for array in found))

    return run


def routes() -> tuple[Route, ...]:
    """Every runtime that is installed."""
    found = [Route("reference", runner(reference_session), half=half_runner(reference_session, reference_feed))]
    if find_spec("onnxruntime") is not None:
        half = half_runner(onnxruntime_session, onnxruntime_feed)
        found.append(Route("onnxruntime", runner(onnxruntime_session), half=half))
    return tuple(found)
