"""A case's derivatives in PyTorch by route.

=============  ======================================================
``plain``      ``torch.autograd.grad`` twice, as a user would write it
``engine``     ``hessiod.torch.hvp``: the exact method that works, or a refusal
``operators``  no derivatives, only what the forward is made of
=============  ======================================================
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from hessiod.backends.certification.case import Case
from hessiod.backends.certification.catalogue import CATALOGUE
from hessiod.backends.certification.golden import Golden, golden
from hessiod.backends.certification.measurement import Measurement, compare
from hessiod.backends_torch.certification.catalogue import OPERATORS
from hessiod.backends_torch.derivatives.functions import hvp

FRAMEWORK = "torch"
ROUTES = ("plain", "engine")
ENGINE_ROUTES = ("engine",)
EXTRA: tuple[str, ...] = ()
NAMES = sorted(OPERATORS, key=lambda name: list(CATALOGUE).index(name.partition("__")[0]))


def header() -> dict[str, str]:
    """What the results depend on."""
    return {"framework": FRAMEWORK, "version": torch.__version__.partition("+")[0], "device": "cpu"}


def case_of(name: str) -> Case:
    """The case that ``case`` or ``case__way`` is a way to write."""
    return CATALOGUE[name.partition("__")[0]]


def tensor(array: np.ndarray) -> torch.Tensor:
    """In the dtypes that users have: float32, int64 for labels, bool."""
    return torch.tensor(array, dtype={"f": torch.float32, "i": torch.int64, "b": torch.bool}[array.dtype.kind])


class Subject:
    """A case as a closure over leaf tensors."""

    def __init__(self, name: str) -> None:
        case = case_of(name)
        self.operator, self.golden = OPERATORS[name], golden(case)
        self.params = [tensor(value).requires_grad_() for value in self.golden.inputs.values()]
        self.constants = [tensor(value) for value in case.constants.values()]
        self.directions = [tensor(value) for value in self.golden.directions.values()]
        self.weights = tensor(self.golden.weights)

    def output(self) -> torch.Tensor:
        """What the operator returns."""
        return self.operator(*self.params, *self.constants)

    def loss(self) -> torch.Tensor:
        """``sum(c * (y + y * y / 2))``."""
        y = self.output()
        return (self.weights * (y + y * y / 2)).sum()

    def gradient(self) -> list[np.ndarray]:
        """The gradient."""
        return arrays(torch.autograd.grad(self.loss(), self.params))

    def product(self) -> list[np.ndarray]:
        """The Hessian's product by reverse mode over reverse mode."""
        gradients = torch.autograd.grad(self.loss(), self.params, create_graph=True)
        return arrays(torch.autograd.grad(gradients, self.params, self.directions))

    def engine_product(self) -> list[np.ndarray]:
        """The Hessian's product as hessiod takes it."""
        return arrays(hvp(self.loss, self.params, self.directions))


def arrays(tensors: Sequence[torch.Tensor]) -> list[np.ndarray]:
    """As numpy arrays."""
    return [(one.to_dense() if one.is_sparse else one).detach().numpy() for one in tensors]


def expected(truth: Golden) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The golden gradients and products."""
    return list(truth.gradients.values()), list(truth.products.values())


def measure(name: str, route: str, check: bool = True) -> Measurement:
    """A case by a route. The engine reads its table whatever ``check`` says: name no table if none shall be read."""
    subject = Subject(name)
    if route == "operators":
        return Measurement(operators=operators(subject.output()))
    product = subject.engine_product if route == "engine" else subject.product
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        found = compare(subject.gradient, product, *expected(subject.golden))
    # the engine runs attention in elementary operators, which can be differentiated twice
    with sdpa_kernel(SDPBackend.MATH) if route == "engine" else contextlib.nullcontext():
        found.operators = operators(subject.output())
    return found


def operators(output: torch.Tensor) -> tuple[str, ...]:
    """The names of the autograd nodes under a tensor, each once; accumulation into leaves is none."""
    names: set[str] = set()
    seen: set[Any] = set()
    waiting = [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        names.add(node.name())
        waiting.extend(parent for parent, _ in node.next_functions)
    return tuple(sorted(names - {"torch::autograd::AccumulateGrad"}))
