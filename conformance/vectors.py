"""Test vectors for an exported kernel, in the layout of ONNX's own backend tests.

    test_<rule>_<kernel>_<dtype>/model.onnx
    test_<rule>_<kernel>_<dtype>/test_data_set_<n>/input_<i>.pb, output_<i>.pb

Inputs are the arrays of level 1; outputs are the numpy backend's, which agree with every other backend bit for bit
where only additions, products, quotients and square roots are taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper

from hessiod.backends.checkpoint import write_atomically
from hessiod.backends.numpy import run
from hessiod.conformance.inputs import hard_array
from hessiod.conformance.kernels import SETTINGS, Subject

LENGTHS = (2048, 1, 0)


def data_sets(subject: Subject, model: ModelProto, dtype: str) -> Iterator[tuple[list[TensorProto], list[TensorProto]]]:
    """Inputs and outputs, named as in the model, for each length and setting."""
    kernel, kind = subject.kernel, np.dtype(dtype)
    for length in LENGTHS:
        arrays = [hard_array(name, place, (length,), kind) for place, name in enumerate(kernel.operands)]
        for setting in SETTINGS:
            scalars = dict(kernel.scalars_from({**subject.defaults, **setting}))
            values = dict(zip(kernel.operands, arrays, strict=True))
            values |= {name: np.asarray(value, kind) for name, value in scalars.items()}
            results = zip(model.graph.output, run(kernel.function, arrays, scalars), strict=True)
            inputs = [numpy_helper.from_array(values[given.name], given.name) for given in model.graph.input]
            yield inputs, [numpy_helper.from_array(array, output.name) for output, array in results]


def write_vectors(subject: Subject, model: ModelProto, dtype: str, folder: Path) -> Path:
    """Write a kernel's model and data sets; return their folder."""
    place = folder / f"test_{model.graph.name}_{dtype}"
    place.mkdir(parents=True, exist_ok=True)
    write_atomically(place / "model.onnx", model.SerializeToString())
    for number, (inputs, outputs) in enumerate(data_sets(subject, model, dtype)):
        data = place / f"test_data_set_{number}"
        data.mkdir(exist_ok=True)
        for kind, tensors in (("input", inputs), ("output", outputs)):
            for index, tensor in enumerate(tensors):
                write_atomically(data / f"{kind}_{index}.pb", tensor.SerializeToString())
    return place
