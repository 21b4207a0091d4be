"""Make the golden objectives: ``python -m hessiod.conformance.golden.make_objectives [FOLDER]``.

Every value comes from two frameworks' autodiff in float64, torch's and jax's, which must agree within 1e-12 of the
norm; the first one is written. Inputs are small: their products must not overflow a softmax without its shift.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from onnx import numpy_helper

from hessiod.backends.checkpoint import write_atomically
from hessiod.conformance.objectives import OBJECTIVES, Objective

AGREEMENT = 1e-12
Arrays = Sequence[np.ndarray]


def inputs_of(objective: Objective) -> list[np.ndarray]:
    """Weights, data and vectors; the shapes of targets and masks say what they are."""
    rng = np.random.default_rng(sum(map(ord, objective.name)))
    found = [0.4 * rng.normal(size=shape) for shape in objective.weights]
    for place, shape in enumerate(objective.data):
        value = 0.7 * rng.normal(size=shape)
        if objective.name == "quadratic" and place == 0:
            value = value + value.T
        if objective.name == "attention" and place == 1:
            value = np.tril(np.ones(shape))
        if objective.name in ("logistic", "tanh_network", "attention") and place == len(objective.data) - 1:
            value = np.eye(shape[1])[rng.integers(shape[1], size=shape[0])]
        if objective.name == "poisson" and place == 1:
            value = rng.poisson(2.0, size=shape).astype(float)
        if objective.name == "normalization" and place == 0:
            value = 0.05 * value
        found.append(value)
    return found + [rng.normal(size=shape) for shape in objective.weights]


def outputs_by_torch(
    objective: Objective, weights: Sequence[np.ndarray], data: Sequence[np.ndarray], vectors: Any
) -> list:
    """Loss, gradients and products by torch's autograd."""
    import torch

    from hessiod.backends_torch import namespace

    params = [torch.tensor(array, requires_grad=True) for array in weights]
    loss = objective.function(namespace, params, [torch.tensor(array) for array in data])
    grads = torch.autograd.grad(loss, params, create_graph=True)
    products = torch.autograd.grad(grads, params, grad_outputs=[torch.tensor(array) for array in vectors])
    return [array.detach().numpy() for array in (loss, *grads, *products)]


def outputs_by_jax(
    objective: Objective, weights: Sequence[np.ndarray], data: Sequence[np.ndarray], vectors: Any
) -> list:
    """The same by jax, forward over reverse."""
    import jax

    jax.config.update("jax_enable_x64", True)
    namespace = jax_namespace(jax.numpy)

    def function(params: Any) -> Any:
        return objective.function(namespace, params, list(data))

    loss, grads = jax.value_and_grad(function)(list(weights))
    _, products = jax.jvp(jax.grad(function), (list(weights),), (list(vectors),))
    return [np.asarray(array) for array in (loss, *grads, *products)]


def jax_namespace(jnp: Any) -> SimpleNamespace:
    """The functions that objectives call."""
    return SimpleNamespace(
        exp=jnp.exp,
        log=jnp.log,
        sum=jnp.sum,
        mean=jnp.mean,
        matmul=jnp.matmul,
        transpose=lambda x: jnp.swapaxes(x, -1, -2),
        sum_last=lambda x: jnp.sum(x, axis=-1, keepdims=True),
    )


def make(objective: Objective, folder: Path) -> None:
    """Work an objective in both frameworks, compare, write."""
    inputs = inputs_of(objective)
    count, given = len(objective.weights), len(objective.weights) + len(objective.data)
    parts = inputs[:count], inputs[count:given], inputs[given:]
    first, second = outputs_by_torch(objective, *parts), outputs_by_jax(objective, *parts)
    for one, other in zip(first, second, strict=True):
        apart = np.linalg.norm(one - other) / np.linalg.norm(one)
        if not apart <= AGREEMENT:
            raise SystemExit(f"{objective.name}: torch and jax are {apart:.1e} of the norm apart, not {AGREEMENT:g}")
    place = folder / objective.name / "test_data_set_0"
    place.mkdir(parents=True, exist_ok=True)
    for kind, arrays in (("input", inputs), ("output", first)):
        for index, array in enumerate(arrays):
            tensor = numpy_helper.from_array(np.array(array, order="C"), f"{kind}_{index}")
            write_atomically(place / f"{kind}_{index}.pb", tensor.SerializeToString())


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("objectives")
    for each in OBJECTIVES.values():
        make(each, target)
