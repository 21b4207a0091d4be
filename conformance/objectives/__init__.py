"""Objectives with golden values: loss, gradient and a Hessian's product with a vector, in float64.

Each stands in a folder of ``golden/objectives``, in the layout of ONNX's backend tests: ``input_<i>.pb`` are weights,
then data, then the vectors; ``output_<i>.pb`` are the loss, the gradients, the products.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from hessiod.conformance.objectives import functions

Arrays = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Objective:
    """A function ``f(xp, weights, data)`` and the shapes of what it takes."""

    function: Callable[..., Any]
    weights: tuple[tuple[int, ...], ...]
    data: tuple[tuple[int, ...], ...] = ()

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.__name__


OBJECTIVES: Mapping[str, Objective] = {
    objective.name: objective
    for objective in (
        Objective(functions.quadratic, ((6, 1),), ((6, 6), (6, 1))),
        Objective(functions.rosenbrock, ((8,),)),
        Objective(functions.poisson, ((5, 1),), ((20, 5), (20, 1))),
        Objective(functions.logistic, ((4, 10),), ((16, 10), (16, 4))),
        Objective(functions.tanh_network, ((12, 10), (12,), (4, 12), (4,)), ((16, 10), (16, 4))),
        Objective(functions.normalization, ((8, 10), (8,), (8,)), ((16, 10), (16, 8))),
        Objective(functions.attention, ((6, 8), (6, 8), (6, 8), (5, 6)), ((7, 8), (7, 7), (7, 5))),
        Objective(functions.gated_network, ((12, 10), (11, 12), (3, 11)), ((16, 10), (16, 3))),
    )
}


@dataclass(frozen=True)
class Golden:
    """What an objective is evaluated at, and what must come out, in float64."""

    weights: Arrays
    data: Arrays
    vectors: Arrays
    loss: np.ndarray
    gradients: Arrays
    products: Arrays

    @classmethod
    def of(cls, objective: Objective, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> Golden:
        """From arrays in the files' order."""
        count, given = len(objective.weights), len(objective.weights) + len(objective.data)
        weights, data, vectors = inputs[:count], inputs[count:given], inputs[given:]
        return cls(
            tuple(weights),
            tuple(data),
            tuple(vectors),
            outputs[0],
            tuple(outputs[1 : 1 + count]),
            tuple(outputs[1 + count :]),
        )


@cache
def golden(name: str) -> Golden:
    """An objective's golden values."""
    from onnx import TensorProto, numpy_helper

    folder = files("hessiod.conformance.golden") / "objectives" / name / "test_data_set_0"

    def arrays(kind: str) -> list[np.ndarray]:
        paths = [path for path in folder.iterdir() if path.name.startswith(kind)]
        paths.sort(key=lambda path: int(path.name.removesuffix(".pb").rpartition("_")[2]))
        return [numpy_helper.to_array(TensorProto.FromString(path.read_bytes())) for path in paths]

    return Golden.of(OBJECTIVES[name], arrays("input"), arrays("output"))
