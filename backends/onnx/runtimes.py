"""ONNX runtimes as routes: the reference evaluator always, onnxruntime where it is installed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from inspect import Parameter, signature
from typing import Any

import numpy as np
from onnx import ModelProto
from onnx.reference import ReferenceEvaluator

from hessiod.backends.contract import Route
from hessiod.backends.onnx.export import matrix_model, model_of
from hessiod.core.kronecker.kernels import KERNELS
from hessiod.core.trace import trace_function

Kernel = Callable[..., Any]
Session = Callable[[dict[str, np.ndarray]], Any]


MATRICES = {matrix.kernel.function: matrix for matrix in KERNELS.values()}
"""Functions whose arrays keep their shapes."""


@cache
def model(function: Kernel, count: int, scalars: tuple[str, ...], results: int, dtype: str) -> ModelProto:
    """The model of a kernel's function; operands and results are named by their place where the kernel is unknown."""
    if function in MATRICES:
        return matrix_model(MATRICES[function], function.__name__, dtype)
    parameters = signature(function).parameters.values()
    operands = [p.name for p in parameters if p.kind is Parameter.POSITIONAL_OR_KEYWORD][1:]
    assert len(operands) == count
    graph = trace_function(function, operands, scalars, [f"result_{place}" for place in range(results)])
    return model_of(graph, function.__name__, dtype)


def results_of(function: Kernel, arrays: Sequence[np.ndarray], scalars: Mapping[str, float]) -> int:
    """How many arrays a kernel returns: run it on empty ones."""
    from hessiod.backends.numpy import run

    if function in MATRICES:
        return len(MATRICES[function].results)
    return len(run(function, [np.zeros(1, array.dtype) for array in arrays], scalars))


@cache
def reference_session(*key: Any) -> Session:
    """A model in onnx's own evaluator, which is numpy node by node."""
    evaluator = ReferenceEvaluator(model(*key))
    return lambda feeds: evaluator.run(None, feeds)


@cache
def onnxruntime_session(*key: Any) -> Session:
    """A model in onnxruntime on the CPU, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model(*key).SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda feeds: session.run(None, feeds)


def runner(session_of: Callable[..., Session]) -> Callable[..., tuple[Any, ...]]:
    """The ``run`` of a route."""

    def run(function: Kernel, arrays: Sequence[np.ndarray], scalars: Mapping[str, float]) -> tuple[Any, ...]:
        dtype = arrays[0].dtype
        key = (function, len(arrays), tuple(scalars), results_of(function, arrays, scalars), dtype.name)
        graph = model(*key).graph
        shaped = arrays if function in MATRICES else [array.reshape(-1) for array in arrays]
        values = [*shaped, *(np.asarray(value, dtype) for value in scalars.values())]
        names = [given.name for given in graph.input]
        with np.errstate(all="ignore"):
            found = session_of(*key)(dict(zip(names, values, strict=True)))
        return tuple(found if function in MATRICES else (array.reshape(arrays[0].shape) for array in found))

    return run


def routes() -> tuple[Route, ...]:
    """Every runtime that is installed."""
    found = [Route("reference", runner(reference_session))]
    if find_spec("onnxruntime") is not None:
        found.append(Route("onnxruntime", runner(onnxruntime_session)))
    return tuple(found)
