"""Curvature estimates of the optimizers, added up over the calls between two steps.

Both estimators take the user's loss, whose graph exists, or a closure, which the engine runs in a session of its own.
They leave ``.grad`` alone, and hold one array a parameter from the first call until the step that uses it. Under
DistributedDataParallel the sums of all processes are brought together in that step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, reduce
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hessiod.backends_torch import namespace as xp
from hessiod.backends_torch.derivatives.engine import Engine
from hessiod.backends_torch.derivatives.gauss_newton import checked_output, output_gradients, residual_of, used_targets
from hessiod.backends_torch.derivatives.methods import Linearized
from hessiod.backends_torch.derivatives.parallel import (
    data_mesh,
    full_like,
    group_of,
    is_split,
    rank_and_size,
    several_processes,
    sharded_like,
    summed,
    wrappers_of,
)
from hessiod.backends_torch.derivatives.places import nodes
from hessiod.backends_torch.derivatives.session import Session
from hessiod.backends_torch.precision import widened, zeros_for
from hessiod.core import philox
from hessiod.core.curvature import gnb_kernel, gnb_scalars, hutchinson_kernel, mean_kernel
from hessiod.core.errors import InvalidArgument, InvalidState

Product = Callable[[list[Tensor], bool], Sequence[Tensor | None]]
"""From a vector, and whether it is the last, to its product with a Hessian."""


@contextmanager
def explained(loss: Tensor | None = None) -> Iterator[None]:
    """Turn autograd's errors into ones that say what to do; ``loss`` is what is differentiated twice."""
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
        if loss is not None and any(node.name() == "CompiledFunctionBackward" for node in nodes(loss)):
            raise InvalidState(
                "update_curvature: torch cannot differentiate a compiled model twice; pass closure=, which runs it as "
                "it was written, or use a Gauss-Newton estimate (SophiaG)"
            ) from error
        raise


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
        self.seed, self.step, self.calls, self.sum_of_calls = seed, step, 0, False

    @cached_property
    def wrappers(self) -> list[Any]:
        """The DistributedDataParallel modules around the parameters."""
        return wrappers_of(self.params)

    @cached_property
    def group(self) -> Any:
        """The processes on which the same parameters see other data; None where there is one."""
        return group_of(self.params, self.wrappers) if several_processes() else None

    def check_reusable(self) -> None:
        """Refuse a graph that no derivative may be taken of before the training's own backward."""
        refuse_shards(self.params)
        if any(wrapper.static_graph for wrapper in self.wrappers):
            raise InvalidState(
                "update_curvature: found DistributedDataParallel with static_graph=True, which takes the first use of "
                "a forward's graph for the backward and then leaves gradients unsynchronised; pass closure=, or build "
                "it with static_graph=False"
            )

    def check_summed(self, summed: bool) -> None:
        """Whether the calls' losses add up to the step's loss, the same for all of them, or are averaged."""
        if self.calls and summed is not self.sum_of_calls:
            raise InvalidArgument(
                f"summed: found {summed!r} after {self.sum_of_calls!r}, expected the same for all calls before a step"
            )
        self.sum_of_calls = summed

    def add(self, grads: Iterable[Tensor | None]) -> None:
        """Add one call's arrays; None where there is nothing to add."""
        for total, grad in zip(self.totals, grads, strict=True):
            if grad is not None:
                total += widened(grad)
        self.calls += 1

    def summed(self) -> list[Tensor]:
        """The totals over all processes; shards are summed already."""
        if self.group is None:
            return self.totals
        return [t if is_split(t) else summed(t.clone(), self.group) for t in self.totals]

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

    def from_closure(self, closure: Callable[[], Any], mask: Any, scale: float, method: str = "auto") -> None:
        """Add the estimate of a fresh forward, which returns the pair (loss, logits)."""
        if method != "auto":
            raise InvalidArgument(
                f"method: found {method!r} with a Gauss-Newton estimate, which takes first derivatives only; leave it"
            )
        with Session(self.params) as session:
            result = session.run(closure)
            loss, logits = result if isinstance(result, tuple) else (result, None)
            self._add(session, loss, logits, mask, keep_graph=False)

    def from_graph(self, loss: Tensor | None, logits: Tensor | None, mask: Any, scale: float) -> None:
        """Add the gradient of the sampled losses' sum, to which no ``scale`` of the user's loss matters."""
        self.check_reusable()
        self._add(Session(self.params), loss, logits, mask, keep_graph=True)

    def _add(
        self, session: Session, loss: Tensor | None, logits: Tensor | None, mask: Any, *, keep_graph: bool
    ) -> None:
        """Targets outside of ``mask`` are ignored.

        Without one a target is ignored (padding, ``ignore_index``) when the user's loss does not depend on its logits,
        that is, when the loss's gradient with respect to them is zero in every entry.
        """
        loss = check_loss(loss) if mask is None else loss
        logits = self.check_logits(logits)
        used = (
            used_by(check_loss(loss), logits, self.likelihood)
            if mask is None
            else used_targets(logits, mask, self.likelihood)
        )
        if self.fraction < 1 and logits.dim():
            rows = ceil(np.float32(self.fraction * logits.shape[0]))  # float32 drops the dust of 0.1 * 30
            logits, used = logits[:rows], used[:rows]
        residual = residual_of(logits, self.likelihood, self.seed, self.step, self.calls, self.group)
        with explained():
            grads = output_gradients(session, logits, (residual * used).to(logits.dtype), keep_graph)
        self.count += used.sum().cpu()
        self.add(grads)

    def check_logits(self, logits: Tensor | None) -> Tensor:
        """Logits with a graph and, if targets are classes, an axis of them; or an error."""
        return checked_output(logits, "logits", self.likelihood)

    def estimates(self) -> dict[Tensor, Tensor]:
        """The estimate over everything added."""
        count = self.count
        if self.group is not None:
            count = summed(count.to(self.params[0].device, copy=True), self.group)
        if count == 0:
            raise InvalidState("update_curvature: every target is ignored; skip batches that hold only padding")
        scalars = gnb_scalars(count=count.item())
        return self.finish(gnb_kernel(xp, total, **scalars) for total in self.summed())


def used_by(loss: Tensor, logits: Tensor, likelihood: str) -> Tensor:
    """Which targets a loss depends on: 0 and 1, over rows of classes or over entries."""
    with explained():
        (grad,) = torch.autograd.grad(loss, [logits], retain_graph=True, allow_unused=True)
    if grad is None:
        raise InvalidArgument("logits: the loss does not depend on them; pass the tensor it was computed from")
    used = grad != 0
    return used.any(dim=-1, keepdim=True) if likelihood == "categorical" else used


class Hutchinson(Accumulator):
    """``u * (H u)``: the mean over ``samples`` probes and over calls.

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

    def from_closure(self, closure: Callable[[], Any], mask: Any, scale: float, method: str = "auto") -> None:
        """Add the sum over a fresh forward's probes, of the loss divided by ``scale``."""
        self._refuse(mask)
        with Session(self.params) as session:
            self._add(Engine(session, method).products(closure), scale, keep_graph=False)

    def from_graph(self, loss: Tensor | None, logits: Tensor | None, mask: Any, scale: float) -> None:
        """Add the sum over this call's probes, of the loss divided by ``scale``; ``logits`` is not needed."""
        self._refuse(mask)
        self.check_reusable()
        if any(map(is_split, self.params)):
            raise InvalidState(
                "update_curvature: found weights that tensor parallelism has split (DTensor), through which torch "
                "differentiates twice wrongly, without a word; pass closure= and method='finite-difference', or use a "
                "Gauss-Newton estimate (SophiaG)"
            )
        loss = check_loss(loss)
        with explained(loss):
            product = Linearized(loss, self.params)
            self._add(product, scale, keep_graph=True)

    def _refuse(self, mask: Any) -> None:
        if mask is not None:
            raise InvalidArgument("mask: found one with a Hutchinson estimate, which is of the loss as it is; leave it")

    def _add(self, product: Product, scale: float, *, keep_graph: bool) -> None:
        draws = (self._drawn(product, sample, keep_graph) for sample in range(self.samples))
        found = reduce(lambda sums, draw: [a.add_(b) for a, b in zip(sums, draw, strict=True)], draws)
        self.add(mean_kernel(xp, part, inverse_count=1.0 / scale) for part in found)

    def _drawn(self, product: Product, sample: int, keep_graph: bool) -> list[Tensor]:
        """One probe times its product, by parameter; 0 where the loss is linear or does not depend on it."""
        number = self.calls * self.samples + sample
        probes = self._probes(number)
        found = product(probes, not keep_graph and sample + 1 == self.samples)
        pairs = zip(probes, found, strict=True)
        return [
            zeros_for(probe) if curved is None else hutchinson_kernel(xp, widened(probe), widened(curved))
            for probe, curved in pairs
        ]

    def _probes(self, number: int) -> list[Tensor]:
        """One a parameter; of a DTensor the part of the whole parameter's probe, so that splitting changes nothing."""
        draw, key = philox.PROBES[self.probe], dict(seed=self.seed, step=self.step, sample=number)
        if not any(map(is_split, self.params)):
            return draw(xp, self.params, **key, indices=self.indices)
        indices = range(len(self.params)) if self.indices is None else self.indices
        return [  # one after another: a whole probe is never held but for one parameter
            sharded_like(draw(xp, [full_like(param)], **key, indices=[index])[0], param)
            for param, index in zip(self.params, indices, strict=True)
        ]

    def estimates(self) -> dict[Tensor, Tensor]:
        """The mean over all probes and processes, and over the calls or their sum."""
        calls = 1 if self.sum_of_calls else self.calls
        averaged = any(map(is_split, self.params))  # by the backward of fully_shard
        inverse_count = 1.0 / (calls * self.samples * (1 if averaged else rank_and_size(self.group)[1]))
        return self.finish(mean_kernel(xp, total, inverse_count=inverse_count) for total in self.summed())


def refuse_shards(params: Iterable[Tensor]) -> None:
    """Raise for parameters whose gradients autograd gives by ``.backward()`` only."""
    params = list(params)
    if any(map(is_split, params)) and data_mesh(params) is not None:
        raise InvalidState(
            "update_curvature: found parameters that fully_shard (FSDP2) has split, which no graph of a loss reaches; "
            "pass closure= to a Gauss-Newton estimate (SophiaG), or closure= and method='finite-difference'"
        )
