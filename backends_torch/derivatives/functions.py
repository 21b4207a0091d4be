"""Products of a Hessian with vectors, its diagonal and its trace, and the Gauss-Newton diagonal, from a closure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from hessiod.backends_torch import namespace as xp
from hessiod.backends_torch.derivatives.engine import Engine
from hessiod.backends_torch.derivatives.gauss_newton import sampled_squares
from hessiod.backends_torch.derivatives.parallel import averaged, full_like, groups_of, sharded_like, whole
from hessiod.backends_torch.derivatives.session import Session, checked_closures, checked_params, checked_vectors
from hessiod.backends_torch.precision import widened, zeros_for
from hessiod.core import philox
from hessiod.core.curvature import hutchinson_kernel, mean_kernel
from hessiod.core.settings import check_settings
from hessiod.core.trace_estimate import TraceEstimate, trace_estimate

Closure = Callable[[], Any] | Sequence[Callable[[], Any]]


def hvp(closure: Closure, params: Any, vectors: Any, method: str = "auto") -> list[Tensor]:
    r"""The product of a loss's Hessian with a vector.

    .. math:: Hv = \nabla_\theta \langle \nabla_\theta L(\theta), v \rangle

    (Pearlmutter, Fast exact multiplication by the Hessian, 1994.) The result is exact to rounding unless the method
    says otherwise. Weights, ``.grad``, random states, buffers and graphs are as they were afterwards; dropout takes
    the mask that the next training forward would take. Under DistributedDataParallel it is the product of the
    processes' mean loss, so all of them must call.

    Args:
        closure: runs the model and returns the scalar loss, or a tuple that begins with it. Of several, one a part of
            the batch, the mean is taken, in the memory of one.
        params: leaf tensors that require gradients.
        vectors: one tensor a parameter, of its shape, dtype and device.
        method: "reverse" (reverse mode over reverse mode), "forward" (forward over reverse), "auto" (the one of them
            that works, found at the first call and remembered) or "finite-difference" (central differences of
            gradients: an approximation, in float32 or float64).

    Returns:
        A tensor for each parameter, of its shape and dtype; zeros where the loss has no curvature.

    Raises:
        InvalidState: where no exact method works, or a path in the graph is lost. The message names operator, module
            and what is left.
        InvalidArgument: for arguments that do not fit.

    >>> import torch
    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> hvp(lambda: (w**3).sum(), [w], [torch.tensor([1.0, 10.0])])
    [tensor([  6., 120.])]
    """
    params = checked_params(params)
    (found,) = _products(closure, params, [checked_vectors(params, vectors)], method)
    return found


def hessian_diagonal(
    closure: Closure,
    params: Any,
    samples: int = 1,
    seed: int = 0,
    probe: str = "rademacher",
    method: str = "auto",
) -> list[Tensor]:
    r"""Hutchinson's estimate of the Hessian's diagonal, the mean over ``samples`` probes.

    .. math:: \hat d = \frac1n \sum_k u_k \odot H u_k, \qquad \mathrm E[\hat d] = \mathrm{diag}(H)

    (Bekas, Kokiopoulou and Saad, An estimator for the diagonal of a matrix, 2007.) With one Rademacher probe it is
    exact where the Hessian is diagonal; else entry i has the variance :math:`\sum_{j \ne i} H_{ij}^2 / n`, with normal
    probes :math:`2 H_{ii}^2 / n` more. The probes are those of every backend and of every process, bit for bit.

    Args:
        closure: as for :func:`hvp`.
        params: as for :func:`hvp`.
        samples: probes, one after the other; their memory is that of one.
        seed: of the probes.
        probe: "rademacher" or "normal".
        method: as for :func:`hvp`.

    Returns:
        A tensor for each parameter, of its shape, in float32 or wider.

    >>> import torch
    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> hessian_diagonal(lambda: (w**3).sum(), [w])
    [tensor([ 6., 12.])]
    """
    params = checked_params(params)
    check_settings(dict(samples=samples, seed=seed, probe=probe))
    totals = [zeros_for(param) for param in params]
    probes, products = _probed(closure, params, samples, seed, probe, method)
    for vectors, found in zip(probes, products, strict=True):
        for total, vector, product in zip(totals, vectors, found, strict=True):
            total += hutchinson_kernel(xp, widened(vector), widened(product))
    return [mean_kernel(xp, total, inverse_count=1.0 / samples) for total in totals]


def hessian_trace(
    closure: Closure,
    params: Any,
    samples: int = 10,
    seed: int = 0,
    probe: str = "rademacher",
    method: str = "auto",
) -> TraceEstimate:
    r"""Hutchinson's estimate of the Hessian's trace with its standard error.

    .. math:: \hat t = \frac1n \sum_k u_k^\top H u_k, \qquad \mathrm E[\hat t] = \mathrm{tr}(H)

    (Hutchinson, A stochastic estimator of the trace of the influence matrix, 1990.) A probe's form has the variance
    :math:`2 \sum_{i \ne j} H_{ij}^2`, with normal probes :math:`2 \lVert H \rVert_F^2`.

    The arguments are :func:`hessian_diagonal`'s. The result holds ``value``, ``standard_error`` (nan for one probe) and
    ``samples``.

    >>> import torch
    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> hessian_trace(lambda: (w**3).sum(), [w], samples=2)
    TraceEstimate(value=18.0, standard_error=0.0, samples=2)
    """
    params = checked_params(params)
    check_settings(dict(samples=samples, seed=seed, probe=probe))
    forms = []
    for vectors, found in zip(*_probed(closure, params, samples, seed, probe, method), strict=True):
        pairs = zip(vectors, found, strict=True)
        forms.append(sum(float(whole((vector.double() * product.double()).sum())) for vector, product in pairs))
    return trace_estimate(forms)


def gauss_newton_diagonal(
    closure: Closure,
    params: Any,
    samples: int = 1,
    seed: int = 0,
    likelihood: str = "categorical",
    mask: Any = None,
) -> list[Tensor]:
    r"""The Gauss-Newton-Bartlett estimate of the Gauss-Newton matrix's diagonal, the mean over ``samples`` draws.

    .. math:: \hat d = B\,\hat g \odot \hat g, \qquad \mathrm E[\hat d] = \mathrm{diag}(J^\top S J) / B

    with :math:`\hat g` the gradient of the mean loss over B targets that are drawn from the model's own prediction
    (Liu et al., arXiv:2305.14342, Algorithm 2). First derivatives only: every model works that can be trained.

    Args:
        closure: runs the model and returns its output: logits with the classes on the last axis ("categorical"),
            logits ("bernoulli") or means ("gaussian"). Of several, one a part of the batch, all targets count alike.
        params: leaf tensors that require gradients.
        samples: draws of all targets, one after the other.
        seed: of the targets.
        likelihood: "categorical", "bernoulli" or "gaussian" (unit variance, half the squared error).
        mask: which targets count: True, or not 0, keeps one. Of the output's shape, without the classes for
            "categorical"; a list of them for several closures. Without it all count.

    Returns:
        A tensor for each parameter, of its shape, in float32 or wider.

    >>> import torch
    >>> w = torch.tensor([[1.0, 2.0]], requires_grad=True)
    >>> x = torch.ones(5, 1)
    >>> (found,) = gauss_newton_diagonal(lambda: x @ w, [w], samples=2000)
    >>> p = torch.softmax(w.detach(), -1)
    >>> bool(((found - p * (1 - p)).abs() < 0.02).all())
    True
    """
    params = checked_params(params)
    check_settings(dict(samples=samples, seed=seed, likelihood=likelihood))
    closures = checked_closures(closure)
    masks = [mask] if len(closures) == 1 and not isinstance(mask, (list, tuple)) else mask or [None] * len(closures)
    totals = [zeros_for(param) for param in params]
    with Session(params) as session:
        for estimate in sampled_squares(session, closures, list(masks), samples, seed, likelihood):
            for total, part in zip(totals, estimate, strict=True):
                total += part
    return [mean_kernel(xp, total, inverse_count=1.0 / samples) for total in totals]


def _probed(
    closure: Closure, params: list[Tensor], samples: int, seed: int, probe: str, method: str
) -> tuple[Iterator[list[Tensor]], Iterator[list[Tensor]]]:
    """Probes, and their products, in step."""
    draws = (probes_for(params, probe, seed=seed, step=0, sample=sample) for sample in range(samples))
    vectors = list(draws) if samples == 1 else _Again(params, probe, seed, samples)
    return iter(vectors), _products(closure, params, vectors, method)


class _Again(Sequence[list[Tensor]]):
    """Probes that are drawn anew each time they are looked at, so that they take no memory."""

    def __init__(self, params: list[Tensor], probe: str, seed: int, samples: int) -> None:
        self.params, self.probe, self.seed, self.samples = params, probe, seed, samples

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, sample: Any) -> Any:
        if sample >= self.samples:
            raise IndexError(sample)
        return probes_for(self.params, self.probe, seed=self.seed, step=0, sample=sample)


def probes_for(params: Sequence[Tensor], probe: str, **key: Any) -> list[Tensor]:
    """One draw's probe for each parameter; a shard gets its part of the whole parameter's probe."""
    likes = [full_like(param) for param in params]
    drawn = philox.PROBES[probe](xp, likes, **key)
    return [sharded_like(vector, param) for vector, param in zip(drawn, params, strict=True)]


def _products(
    closure: Closure, params: list[Tensor], vectors: Sequence[list[Tensor]], method: str
) -> Iterator[list[Tensor]]:
    """The product with each of the vectors, of the mean of the closures' losses."""
    closures = checked_closures(closure)
    with Session(params) as session:
        engine = Engine(session, method)
        if len(closures) == 1:  # one graph for all vectors
            product = engine.products(closures[0])
            for place in range(len(vectors)):
                found = product(vectors[place], place + 1 == len(vectors))
                yield averaged(found, groups_of(params, session.wrappers))
            return
        for place in range(len(vectors)):
            total = [torch.zeros_like(param) for param in params]
            for part in closures:
                for sum_, found_ in zip(total, engine.products(part)(vectors[place], True), strict=True):
                    sum_ += found_
            mean = [mean_kernel(xp, sum_, inverse_count=1.0 / len(closures)) for sum_ in total]
            yield averaged(mean, groups_of(params, session.wrappers))
