"""Curvature estimates from autograd, added up over the calls between two steps.

Both estimators take the user's loss and work with ``torch.autograd.grad``, which leaves ``.grad`` alone. They hold one
array a parameter from the first call until the step that uses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from math import ceil

import numpy as np
import torch
from torch import Tensor

from hessiod.backends_torch import namespace as xp
from hessiod.backends_torch.precision import widened, zeros_for
from hessiod.core import philox
from hessiod.core.curvature import gnb_kernel, gnb_scalars, hutchinson_kernel, mean_kernel
from hessiod.core.errors import InvalidArgument, InvalidState
from hessiod.core.likelihood import RESIDUALS


@contextmanager
def explained() -> Iterator[None]:
    """Turn autograd's errors into ones that say what to do."""
    try:
        yield
    except RuntimeError as error:
        message = str(error).splitlines()[0]
        if "second time" in message:
            raise InvalidState(
                "update_curvature: the graph of this loss has been freed; call update_curvature before loss.backward()"
            ) from error
        if "not implemented" in message:
            raise InvalidState(
                f"update_curvature: torch cannot differentiate this model twice ({message}); pass closure=, which runs "
                "the forward under math attention, or use a Gauss-Newton estimate (SophiaG)"
            ) from error
        raise


def gradients(outputs: Tensor | Sequence[Tensor], params: Sequence[Tensor], **options) -> list[Tensor]:
    """``torch.autograd.grad`` with zeros for parameters that the graph does not use."""
    with explained():
        found = torch.autograd.grad(outputs, params, allow_unused=True, **options)
    return [torch.zeros_like(param) if grad is None else grad for param, grad in zip(params, found, strict=True)]


def check_loss(loss: Tensor | None) -> Tensor:
    """A scalar loss with a graph, or an error."""
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        found = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
        raise InvalidArgument(f"loss: found {found}, expected a scalar tensor; reduce it with .mean()")
    if not loss.requires_grad:
        raise InvalidArgument("loss: found a tensor without a graph; compute it from the model with gradients enabled")
    return loss


class Accumulator:
    """A sum over estimates, one array a parameter, keyed by a seed and a step so that it can be repeated."""

    def __init__(self, params: Iterable[Tensor], seed: int, step: int) -> None:
        self.params = list(params)
        self.totals = [zeros_for(param) for param in self.params]
        self.seed, self.step, self.calls = seed, step, 0

    def add(self, grads: Iterable[Tensor]) -> None:
        """Add one call's arrays."""
        for total, grad in zip(self.totals, grads, strict=True):
            total += widened(grad)
        self.calls += 1

    def finish(self, estimates: Iterable[Tensor]) -> dict[Tensor, Tensor]:
        """Estimates by parameter."""
        return dict(zip(self.params, estimates, strict=True))


class GaussNewtonBartlett(Accumulator):
    """``B * g_hat^2``, with targets sampled from the model's output and counted here.

    ``fraction`` is the leading share of each call's examples (of the logits' first axis, rounded up) that take part.
    """

    def __init__(self, params: Iterable[Tensor], seed: int, step: int, likelihood: str, fraction: float = 1.0) -> None:
        super().__init__(params, seed, step)
        self.likelihood, self.fraction = likelihood, fraction
        self.count = torch.zeros((), dtype=torch.float64)

    def update(self, loss: Tensor | None, logits: Tensor | None, keep_graph: bool, scale: float) -> None:
        """Add the gradient of the sampled losses' sum, to which no ``scale`` of the user's loss matters.

        A target is ignored (padding, ``ignore_index``, a mask of the user's) when the user's loss does not depend on
        its logits, that is, when the loss's gradient with respect to them is zero in every entry.
        """
        loss, logits = check_loss(loss), self.check_logits(logits)
        used = self.used(loss, logits)
        if self.fraction < 1 and logits.dim():
            rows = ceil(np.float32(self.fraction * logits.shape[0]))  # float32 drops the dust of 0.1 * 30
            logits, used = logits[:rows], used[:rows]
        residual = RESIDUALS[self.likelihood](xp, widened(logits.detach()), self.seed, self.step, self.calls)
        residual = (residual * used).to(logits.dtype)
        grads = gradients(logits, self.params, grad_outputs=residual, retain_graph=keep_graph)
        self.count += used.sum().cpu()
        self.add(grads)

    def check_logits(self, logits: Tensor | None) -> Tensor:
        """Logits with a graph and, if targets are classes, an axis of them; or an error."""
        if not isinstance(logits, Tensor) or not logits.requires_grad:
            raise InvalidArgument(
                f"logits: found {type(logits).__name__} without a graph, expected the model's output from which the "
                "loss was computed"
            )
        if self.likelihood == "categorical" and (logits.dim() < 2 or logits.shape[-1] < 2):
            raise InvalidArgument(
                f"logits: found the shape {tuple(logits.shape)}, expected [..., classes] with at least 2 classes on "
                "the last axis; move the class axis there, or choose another likelihood="
            )
        return logits

    def used(self, loss: Tensor, logits: Tensor) -> Tensor:
        """Which targets the loss depends on: 0 and 1, over rows of classes or over entries."""
        with explained():
            (grad,) = torch.autograd.grad(loss, [logits], retain_graph=True, allow_unused=True)
        if grad is None:
            raise InvalidArgument("logits: the loss does not depend on them; pass the tensor it was computed from")
        used = grad != 0
        return used.any(dim=-1, keepdim=True) if self.likelihood == "categorical" else used

    def estimates(self) -> dict[Tensor, Tensor]:
        """The estimate over everything added."""
        if self.count == 0:
            raise InvalidState("update_curvature: every target is ignored; skip batches that hold only padding")
        scalars = gnb_scalars(count=self.count.item())
        return self.finish(gnb_kernel(xp, total, **scalars) for total in self.totals)


class Hutchinson(Accumulator):
    """``u * (H u)`` by reverse mode over reverse mode: the mean over ``samples`` probes and over calls.

    ``indices`` are the parameters' positions in the optimizer, by which their probes are keyed.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        seed: int,
        step: int,
        probe: str = "rademacher",
        samples: int = 1,
        indices: Sequence[int] | None = None,
    ) -> None:
        super().__init__(params, seed, step)
        self.probe, self.samples, self.indices = probe, samples, indices

    def update(self, loss: Tensor | None, logits: Tensor | None, keep_graph: bool, scale: float) -> None:
        """Add the sum over this call's probes, of the loss divided by ``scale``; ``logits`` is not needed."""
        grads = gradients(check_loss(loss), self.params, create_graph=True)
        draws = (self._drawn(grads, sample, keep_graph) for sample in range(self.samples))
        found = reduce(lambda sums, draw: [a.add_(b) for a, b in zip(sums, draw, strict=True)], draws)
        self.add(mean_kernel(xp, part, inverse_count=1.0 / scale) for part in found)

    def _drawn(self, grads: list[Tensor], sample: int, keep_graph: bool) -> list[Tensor]:
        """One probe times its product, by parameter."""
        number = self.calls * self.samples + sample
        key = dict(seed=self.seed, step=self.step, sample=number, indices=self.indices)
        probes = philox.PROBES[self.probe](xp, self.params, **key)
        curved = [(grad, probe) for grad, probe in zip(grads, probes, strict=True) if grad.requires_grad]
        if curved:
            slopes, directions = zip(*curved, strict=True)
            keep = keep_graph or sample + 1 < self.samples
            products = gradients(slopes, self.params, grad_outputs=directions, retain_graph=keep)
        else:  # a loss that is linear in every parameter
            products = [torch.zeros_like(param) for param in self.params]
        pairs = zip(probes, products, strict=True)
        return [hutchinson_kernel(xp, widened(probe), widened(product)) for probe, product in pairs]

    def estimates(self) -> dict[Tensor, Tensor]:
        """The mean over all probes."""
        inverse_count = 1.0 / (self.calls * self.samples)
        return self.finish(mean_kernel(xp, total, inverse_count=inverse_count) for total in self.totals)
