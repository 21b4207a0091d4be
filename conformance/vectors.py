"""Test vectors for an exported kernel, in the layout of ONNX's own backend tests.

    test_<rule>_<kernel>_<dtype>/model.onnx
    test_<rule>_<kernel>_<dtype>/test_data_set_<n>/input_<i>.pb, output_<i>.pb

Inputs are the arrays of level 1, and of matrices those of level 3; outputs are the numpy backend's, which agree with
every other backend bit for bit where only additions, products, quotients and square roots are taken. A matrix product
is a sum, which may be taken in any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper

from hessiod.backends.checkpoint import write_atomically
from hessiod.backends.numpy import run
from hessiod.conformance.example import Subject
from hessiod.conformance.inputs import hard_array
from hessiod.conformance.kernels import SETTINGS
from hessiod.conformance.matrices import Call
from hessiod.core.rule import Kernel

LENGTHS = (2048, 1, 0)


def calls_of(subject: Subject, dtype: np.dtype) -> Iterator[Call]:
    """Operands and scalars of every length and setting."""
    kernel = subject.kernel
    for length in LENGTHS:
        arrays = [hard_array(name, place, (length,), dtype) for place, name in enumerate(kernel.operands)]
        for setting in SETTINGS:
            yield arrays, dict(kernel.scalars_from({**subject.defaults, **setting}))


def data_sets(
    kernel: Kernel, calls: Iterable[Call], model: ModelProto, dtype: str
) -> Iterator[tuple[list[TensorProto], list[TensorProto]]]:
    """Inputs and outputs of each call, named as in the model."""
    for arrays, scalars in calls:
        values = dict(zip(kernel.operands, arrays, strict=True))
        values |= {name: np.asarray(value, dtype) for name, value in scalars.items()}
        results = zip(model.graph.output, run(kernel.function, arrays, scalars), strict=True)
        inputs = [numpy_helper.from_array(values[given.name], given.name) for given in model.graph.input]
        yield inputs, [numpy_helper.from_array(np.asarray(array), output.name) for output, array in results]


def write_vectors(kernel: Kernel, calls: Iterable[Call], model: ModelProto, dtype: str, folder: Path) -> Path:
    """Write a kernel's model and data sets; return their folder."""
    place = folder / f"test_{model.graph.name}_{dtype}"
    place.mkdir(parents=True, exist_ok=True)
    write_atomically(place / "model.onnx", model.SerializeToString())
    for number, (inputs, outputs) in enumerate(data_sets(kernel, calls, model, dtype)):
        data = place / f"test_data_set_{number}"
        data.mkdir(exist_ok=True)
        for kind, tensors in (("input", inputs), ("output", outputs)):
            for index, tensor in enumerate(tensors):
                write_atomically(data / f"{kind}_{index}.pb", tensor.SerializeToString())
    return place
