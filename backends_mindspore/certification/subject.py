"""A case as a net whose parameters are the case's inputs, and its derivatives by the three ways that are compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn

from hessiod.backends.certification.golden import Golden, golden
from hessiod.backends_mindspore.certification.catalogue import CELLS, FUNCTIONS, case_of, parameter_names


class Function(nn.Cell):
    """``sum(c * (y + y * y / 2))`` of an operator whose inputs are all parameters."""

    def __init__(self, operator, operands, weights):
        super().__init__(auto_prefix=False)
        self.operator, self.operands, self.weights = operator, ParameterTuple(operands), weights

    def construct(self, *constants):
        """The objective."""
        y = self.operator(*self.operands, *constants)
        return (self.weights * (y + y * y * 0.5)).sum()


class Layer(nn.Cell):
    """The same of a Cell, some of whose inputs are its own parameters."""

    def __init__(self, layer, operands, weights):
        super().__init__(auto_prefix=False)
        self.layer, self.operands, self.weights = layer, ParameterTuple(operands), weights

    def construct(self, *constants):
        """The objective."""
        y = self.layer(*self.operands, *constants)
        return (self.weights * (y + y * y * 0.5)).sum()


def tensor(array: np.ndarray) -> Tensor:
    """In the dtypes that users have: float32, int32 for labels, bool."""
    kinds = {"f": np.float32, "i": np.int32, "b": np.bool_}
    return Tensor(array.astype(kinds[array.dtype.kind]))


class Subject:
    """A case as a net: the Cell, its parameters in the order of the case's inputs, directions and constants."""

    def __init__(self, name: str) -> None:
        self.case = case_of(name)
        self.golden: Golden = golden(self.case)
        weights = tensor(self.golden.weights)
        if name in FUNCTIONS:
            params = {key: Parameter(tensor(value), name=key) for key, value in self.golden.inputs.items()}
            self.net: nn.Cell = Function(FUNCTIONS[name], list(params.values()), weights)
        else:
            layer = CELLS[name]()
            params = self.parameters_of(layer)
            operands = [params[key] for key in params if key not in self.inner]
            self.net = Layer(layer, operands, weights)
        self.params = [params[key] for key in self.golden.inputs]
        directions = zip(self.golden.directions.values(), self.params, strict=True)
        self.directions = [tensor(value.reshape(param.shape)) for value, param in directions]
        self.constants = [tensor(value) for value in self.used(name)]

    def parameters_of(self, layer: nn.Cell) -> dict[str, Parameter]:
        """The case's inputs: those that are the layer's parameters, which get their values, and new ones."""
        own = {param.name.rpartition("layer.")[2]: param for param in layer.get_parameters()}
        names = parameter_names(self.case)
        self.inner, params = set(), {}
        for key, value in self.golden.inputs.items():
            param = own.get(names.get(key, key), own.get(key))
            if param is None:
                params[key] = Parameter(tensor(value), name=key)
            else:
                param.set_data(tensor(value.reshape(param.shape)))
                params[key] = param
                self.inner.add(key)
        return params

    def used(self, name: str) -> list[np.ndarray]:
        """The case's constants; a layer has stored statistics of its own."""
        constants = self.case.constants
        if name in CELLS:
            return [value for key, value in constants.items() if key not in ("mean", "variance")]
        return list(constants.values())


def arrays(tensors: Sequence[Any]) -> list[np.ndarray]:
    """As numpy arrays."""
    return [one.asnumpy() for one in tensors]


def eager_gradient(subject: Subject) -> list[np.ndarray]:
    """Gradients as a plain PyNative program gets them."""
    return arrays(ms.grad(subject.net, None, ParameterTuple(subject.params))(*subject.constants))


def eager_product(subject: Subject) -> list[np.ndarray]:
    """Products as a plain PyNative program gets them."""
    weights = ParameterTuple(subject.params)
    gradient = ms.grad(subject.net, None, weights)

    def slope(*constants):
        total = 0.0
        for g, v in zip(gradient(*constants), subject.directions, strict=True):
            total = total + (g * v).sum()
        return total

    return arrays(ms.grad(slope, None, weights)(*subject.constants))
