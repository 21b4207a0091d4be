"""Products of a Hessian with vectors, its diagonal and its trace, from a user's own net."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor

from hessiod.backends_mindspore.derivatives.cells import GaussNewton, Probed, Product
from hessiod.backends_mindspore.derivatives.graph import Graph, graph_of
from hessiod.core.errors import InvalidArgument
from hessiod.core.likelihood import RESIDUALS
from hessiod.core.philox import PROBES
from hessiod.core.trace_estimate import TraceEstimate, trace_estimate


def hvp(
    forward: Callable[..., Any],
    params: Sequence[Parameter],
    vectors: Sequence[Tensor],
    inputs: Any,
    *,
    uncertified: str = "check",
) -> tuple[Tensor, ...]:
    r"""The product of the Hessian of a loss with a vector, exact to rounding.

    .. math:: Hv = \nabla_\theta \langle \nabla_\theta L(\theta), v \rangle

    Reverse mode over reverse mode (Pearlmutter 1994), traced in ``ms.jit`` whatever the mode. While it is traced,
    operators whose derivatives MindSpore has wrong are replaced by right ones; net and statistics stay as they were.
    One compilation for each shape of the inputs, if ``forward`` is the same object at each call.

    Args:
        forward: a Cell, such as ``nn.WithLossCell(net, loss_fn)``, or a function, from inputs to the scalar loss. Its
            Cells count as they are: ``set_train`` first.
        params: Parameters, for each of which there is a result.
        vectors: one Tensor a parameter, of its shape and dtype.
        inputs: a Tensor, or a tuple of what ``forward`` is called with.
        uncertified: what to do about operators that the certification table does not know: "check" compares with
            finite differences once a shape, "allow" trusts, "refuse" raises.

    Raises:
        InvalidArgument: for an operator whose second derivative is not right, by its name and its place in the net.

    >>> import mindspore as ms
    >>> from mindspore import Tensor, nn
    >>> from hessiod.mindspore import hvp
    >>> net = nn.Dense(2, 1, weight_init="ones", has_bias=False)
    >>> x, y = Tensor([[1.0, 2.0], [3.0, 4.0]]), Tensor([[0.0], [1.0]])
    >>> (product,) = hvp(nn.WithLossCell(net, nn.MSELoss()), net.trainable_params(), [Tensor([[1.0, 0.0]])], (x, y))
    >>> product.asnumpy()
    array([[10., 14.]], dtype=float32)
    """
    params, inputs = checked(params), as_tuple(inputs)
    check_vectors(params, vectors)
    return tuple(graph_of(Product, forward, params, 2, uncertified)(tuple(vectors), inputs))


def hessian_diagonal(
    forward: Callable[..., Any],
    params: Sequence[Parameter],
    inputs: Any,
    samples: int = 1,
    seed: int = 0,
    probe: str = "rademacher",
    *,
    uncertified: str = "check",
) -> tuple[Tensor, ...]:
    r"""Hutchinson's estimate of the Hessian's diagonal, the mean over ``samples`` probes.

    .. math:: \hat d = \frac1n \sum_k u_k \odot H u_k, \qquad \mathrm E[\hat d] = \mathrm{diag}(H)

    (Bekas, Kokiopoulou and Saad 2007.) Exact with one Rademacher probe where the Hessian is diagonal; entry i has the
    variance :math:`\sum_{j \ne i} H_{ij}^2 / n` otherwise. The probes are those of every other backend, bit for bit.

    Args:
        forward: a Cell or function from inputs to the scalar loss, as for :func:`hvp`.
        params: Parameters, for each of which there is a result.
        inputs: a Tensor, or a tuple of what ``forward`` is called with.
        samples: how many probes.
        seed: of the probes.
        probe: "rademacher" or "normal".
        uncertified: as for :func:`hvp`.
    """
    params, inputs = checked(params), as_tuple(inputs)
    graph = probed(forward, params, samples, seed, probe, uncertified)
    return mean([graph((Tensor(sample, ms.int64),), inputs)[0] for sample in range(samples)])


def hessian_trace(
    forward: Callable[..., Any],
    params: Sequence[Parameter],
    inputs: Any,
    samples: int = 1,
    seed: int = 0,
    probe: str = "rademacher",
    *,
    uncertified: str = "check",
) -> TraceEstimate:
    r"""Hutchinson's estimate of the Hessian's trace, with its standard error (Hutchinson 1990).

    .. math:: \hat t = \frac1n \sum_k u_k^\top H u_k, \qquad \mathrm E[\hat t] = \mathrm{tr}\,H

    The arguments are those of :func:`hessian_diagonal`.
    """
    params, inputs = checked(params), as_tuple(inputs)
    graph = probed(forward, params, samples, seed, probe, uncertified)
    forms = [graph((Tensor(sample, ms.int64),), inputs)[1] for sample in range(samples)]
    return trace_estimate([float(form.asnumpy()) for form in forms])


def gauss_newton_diagonal(
    forward: Callable[..., Any],
    params: Sequence[Parameter],
    inputs: Any,
    samples: int = 1,
    seed: int = 0,
    likelihood: str = "categorical",
    mask: Tensor | None = None,
    *,
    uncertified: str = "check",
) -> tuple[Tensor, ...]:
    r"""The Gauss-Newton-Bartlett estimate of the Gauss-Newton matrix's diagonal, for the mean loss over B targets.

    .. math:: \hat d = B\,\hat g \odot \hat g, \qquad \hat g = \frac1B \sum_b \nabla_\theta (-\log p(\hat y_b | f_b))

    with the targets drawn from the model's own output (Liu et al., arXiv:2305.14342, Algorithm 2). It needs first
    derivatives only, and is never negative.

    Args:
        forward: a Cell or function from inputs to the model's output: logits ``[..., classes]`` for "categorical".
        params: Parameters, for each of which there is a result.
        inputs: a Tensor, or a tuple of what ``forward`` is called with.
        samples: how many draws of all targets, whose estimates are averaged.
        seed: of the draws.
        likelihood: "categorical", "bernoulli" or "gaussian".
        mask: nonzero where a target counts: ``[...]`` for "categorical", else of the output's shape. None counts all.
        uncertified: as for :func:`hvp`.
    """
    params, inputs = checked(params), as_tuple(inputs)
    if likelihood not in RESIDUALS:
        raise InvalidArgument(f"likelihood: found {likelihood!r}, expected one of {', '.join(RESIDUALS)}")
    if mask is not None and not mask.asnumpy().any():
        raise InvalidArgument("mask: found no target that counts, expected at least one nonzero entry")
    settings = dict(seed=check_draws(samples, seed), likelihood=likelihood, masked=mask is not None)
    graph = graph_of(GaussNewton, forward, params, 1, uncertified, **settings)
    shown = Tensor(0.0, ms.float32) if mask is None else mask
    return mean([graph((Tensor(sample, ms.int64), shown), inputs) for sample in range(samples)])


def probed(
    forward: Callable[..., Any], params: list[Parameter], samples: int, seed: int, probe: str, uncertified: str
) -> Graph:
    """The graph of one probe."""
    if probe not in PROBES:
        raise InvalidArgument(f"probe: found {probe!r}, expected one of {', '.join(PROBES)}")
    return graph_of(Probed, forward, params, 2, uncertified, seed=check_draws(samples, seed), probe=probe)


def mean(draws: list[Sequence[Tensor]]) -> tuple[Tensor, ...]:
    """The mean over draws, a parameter at a time."""
    return tuple(sum(arrays[1:], arrays[0]) / len(draws) for arrays in zip(*draws, strict=True))


def check_draws(samples: int, seed: int) -> int:
    """The seed in the form that a graph takes: its integers are int64, with the same bits."""
    if not isinstance(samples, int) or samples < 1:
        raise InvalidArgument(f"samples: found {samples!r}, expected a whole number >= 1")
    if not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise InvalidArgument(f"seed: found {seed!r}, expected an integer in [0, 2^64)")
    return seed - 2**64 if seed >= 2**63 else seed


def as_tuple(inputs: Any) -> tuple[Any, ...]:
    """One input, or several, as a tuple."""
    return tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)


def checked(params: Sequence[Parameter]) -> list[Parameter]:
    """Parameters as a list, or an error."""
    params = list(params)
    wrong = [param for param in params if not isinstance(param, Parameter)]
    if wrong or not params:
        found = type(wrong[0]).__name__ if wrong else "an empty list"
        raise InvalidArgument(f"params: found {found}, expected Parameters; pass net.trainable_params()")
    return params


def check_vectors(params: Sequence[Parameter], vectors: Sequence[Tensor]) -> None:
    """Raise unless there is a vector of each parameter's shape and dtype."""
    if len(vectors) != len(params):
        raise InvalidArgument(f"vectors: found {len(vectors)}, expected {len(params)}, one for each parameter")
    for param, vector in zip(params, vectors, strict=True):
        found = (vector.shape, vector.dtype) if isinstance(vector, Tensor) else type(vector).__name__
        if found != (param.shape, param.dtype):
            raise InvalidArgument(
                f"vectors: found {found} for parameter {param.name!r}, expected a Tensor {(param.shape, param.dtype)}"
            )
