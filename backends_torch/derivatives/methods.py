"""Three ways to a Hessian's product with a vector. Each is made for one closure and then called with vectors.

* :class:`Reverse`: the gradient of ``g'v`` (Pearlmutter 1994). One graph serves all vectors; never
  ``backward(create_graph=True)``, which ties parameters and graph into a cycle.
* :class:`Forward`: the directional derivative of the gradient, with dual weights; a run for each vector.
* :class:`Differences`: ``(g(w + t v) - g(w - t v)) / 2t``; two runs for each vector, an approximation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.graph import get_gradient_edge

from hessiod.backends_torch.derivatives.gradients import dense, gradient, gradient_by_backward
from hessiod.backends_torch.derivatives.parallel import whole
from hessiod.backends_torch.derivatives.session import Session
from hessiod.core.errors import InvalidArgument

Products = list[Tensor | None]
"""One a parameter; None where the graph has no path to it."""


class Method(Protocol):
    """Products of one closure's Hessian; ``unused`` has the places of parameters that the graph does not use."""

    unused: set[int]

    def __call__(self, vectors: Sequence[Tensor], last: bool = True) -> Products:
        """The product; ``last`` frees what a further vector would need."""


def scalar(loss: object) -> Tensor:
    """A closure's scalar loss with a graph, or an error."""
    if isinstance(loss, tuple) and loss:
        loss = loss[0]
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        found = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
        raise InvalidArgument(f"closure: returned {found}, expected a scalar loss; reduce it with .mean()")
    if not loss.requires_grad:
        raise InvalidArgument(
            "closure: returned a loss without a graph; compute it from the parameters, without torch.no_grad()"
        )
    return loss


class Linearized:
    """Reverse mode over the graph of a gradient, of a loss whose graph exists.

    Of the gradient itself only its place in the graph is kept, which is as many bytes less as the parameters have.
    """

    def __init__(self, loss: Tensor, params: Sequence[Tensor]) -> None:
        self.params = params
        gradients = torch.autograd.grad(loss, params, create_graph=True, allow_unused=True)
        self.unused = {place for place, grad in enumerate(gradients) if grad is None}
        self.slopes = {
            place: get_gradient_edge(dense(grad))
            for place, grad in enumerate(gradients)
            if grad is not None and grad.requires_grad
        }

    def __call__(self, vectors: Sequence[Tensor], last: bool = True) -> Products:
        """The product; the graph stays unless this is the last."""
        if not self.slopes:
            return [None] * len(self.params)
        slopes, directions = list(self.slopes.values()), [vectors[place] for place in self.slopes]
        if last:
            self.slopes = {}
        found = torch.autograd.grad(slopes, self.params, directions, retain_graph=not last, allow_unused=True)
        return [None if product is None else dense(product) for product in found]


class Reverse(Linearized):
    """Reverse mode over reverse mode."""

    def __init__(self, session: Session, closure: Callable[[], object], params: Sequence[Tensor]) -> None:
        super().__init__(scalar(session.run(closure)), params)


class Forward:
    """Forward mode over reverse mode."""

    def __init__(self, session: Session, closure: Callable[[], object], params: Sequence[Tensor]) -> None:
        self.session, self.closure, self.params = session, closure, params
        self.unused: set[int] = set()

    def __call__(self, vectors: Sequence[Tensor], last: bool = True) -> Products:
        """The product, as the tangent of the gradient."""
        with forward_ad.dual_level(), moved(self.params):
            with torch.no_grad():
                for param, vector in zip(self.params, vectors, strict=True):
                    param.copy_(forward_ad.make_dual(param.detach().clone(), vector))
            found = torch.autograd.grad(scalar(self.session.run(self.closure)), self.params, allow_unused=True)
            self.unused = {place for place, grad in enumerate(found) if grad is None}
            return [None if grad is None else forward_ad.unpack_dual(grad).tangent for grad in found]


class Differences:
    """Central differences of gradients in float32 or float64.

    The step is ``t = u^(1/3) * ||w|| / ||v||`` over all parameters with u the unit roundoff, which balances the error
    of the formula, of order t^2, and that of the gradients, of order u / t. Weights of zero norm count as of norm 1.
    """

    def __init__(
        self, session: Session, closure: Callable[[], object], params: Sequence[Tensor], by_backward: bool = False
    ) -> None:
        self.session, self.closure, self.params = session, closure, params
        self.gradients: Products = []
        self.unused: set[int] = set()
        self.by_backward = by_backward
        self.shrink = 1.0

    def __call__(self, vectors: Sequence[Tensor], last: bool = True) -> Products:
        """The product, from the gradients at two points."""
        step = self.shrink * step_size(self.params, vectors)
        if step == 0:  # no direction
            return [torch.zeros_like(param) for param in self.params]
        ahead, behind = self._gradient(vectors, step), self._gradient(vectors, -step)
        self.gradients = ahead
        self.unused = {place for place, grad in enumerate(ahead) if grad is None}
        pairs = zip(ahead, behind, strict=True)
        return [None if a is None or b is None else (a - b) * (0.5 / step) for a, b in pairs]

    def _gradient(self, vectors: Sequence[Tensor], step: float) -> Products:
        with moved(self.params):
            with torch.no_grad():
                for param, vector in zip(self.params, vectors, strict=True):
                    param.add_(vector, alpha=step)
            loss = scalar(self.session.run(self.closure))
            if self.by_backward:
                return gradient_by_backward(self.session, loss, self.params)
            return gradient(loss, self.params)


def step_size(params: Sequence[Tensor], vectors: Sequence[Tensor]) -> float:
    """Where along the vectors the gradients are taken; 0 for zero vectors."""
    weights, length = norm(params), norm(vectors)
    roundoff = max(torch.finfo(param.dtype).eps for param in params) / 2
    return roundoff ** (1 / 3) * (weights or 1.0) / length if length else 0.0


def norm(tensors: Sequence[Tensor]) -> float:
    """The Euclidean norm over all tensors."""
    return sum(float(whole(torch.linalg.vector_norm(t.detach(), dtype=torch.float64))) ** 2 for t in tensors) ** 0.5


@contextmanager
def moved(params: Sequence[Tensor]) -> Iterator[None]:
    """Put weights back bit for bit, and unnoticed by graphs that hold them: their versions are put back too."""
    saved = [param.detach().clone() for param in params]
    with torch.autograd._unsafe_preserve_version_counter(tuple(params)):  # type: ignore[attr-defined]
        try:
            yield
        finally:
            with torch.no_grad(), forward_ad._set_fwd_grad_enabled(False):  # type: ignore[attr-defined]
                for param, value in zip(params, saved, strict=True):
                    param.copy_(value)
