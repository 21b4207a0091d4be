"""Diagnostics as numbers for a logger: a flat dictionary after a step, to any function of one, or to TensorBoard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hessiod.backends.logs import Log, check_every, intervals, named, spread
from hessiod.backends_torch.adapter import RuleOptimizer
from hessiod.backends_torch.hook import unwrapped
from hessiod.backends_torch.kronecker.optimizer import KroneckerOptimizer
from hessiod.backends_torch.second_order import CurvatureOptimizer


def scalars(optimizer: Any) -> dict[str, float]:
    """What :meth:`~hessiod.backends_torch.adapter.RuleOptimizer.diagnostics` says, and the pace, as plain numbers.

    - ``hessiod/clip_fraction``, ``hessiod/curvature/50%`` and so on; with several groups ``hessiod/0/clip_fraction``.
    - ``hessiod/step``, and with curvature ``hessiod/refreshes``, the estimates folded in so far.
    - ``hessiod/interval``: steps between two estimates. K-FAC, SP-NGD and THOR, which have one for each layer or
      statistic: ``hessiod/interval/min``, ``/mean`` and ``/max``.
    - ``hessiod/damping``, where there is one.

    Args:
        optimizer: of this library, or a trainer's wrapper around one.

    >>> import torch
    >>> from hessiod.torch import SophiaH
    >>> theta = torch.nn.Parameter(torch.ones(2))
    >>> opt = SophiaH([theta], rho=0.1, every=5, warm_start=True)
    >>> loss = (torch.tensor([1.0, 100.0]) * theta**2).sum() / 2
    >>> opt.update_curvature(loss=loss)
    >>> loss.backward()
    >>> _ = opt.step()
    >>> {name: value for name, value in scalars(opt).items() if "%" not in name}  # doctest: +NORMALIZE_WHITESPACE
    {'hessiod/clip_fraction': 0.0, 'hessiod/curvature/min': 1.0, 'hessiod/curvature/max': 100.0,
     'hessiod/negative_curvature': 0.0, 'hessiod/step': 1, 'hessiod/interval': 5, 'hessiod/refreshes': 1}
    """
    opt = unwrapped(optimizer)
    return named(opt.diagnostics(), {"step": opt.steps} | dict(pace(opt)))


def pace(opt: RuleOptimizer) -> Iterator[tuple[str, float]]:
    """How often curvature is taken, how often it was, and the damping."""
    if isinstance(opt, KroneckerOptimizer):
        yield "damping", opt.damping
        every = opt.param_groups[0]["factor_every"]
        yield from spread([number for layer in opt.layers for number in intervals(opt.layer_state(layer), every)])
    elif isinstance(opt, CurvatureOptimizer):
        yield "interval", opt.param_groups[0]["every"]
        if "damping" in opt.param_groups[0]:
            yield "damping", float(opt.param_groups[0]["damping"])
        yield "refreshes", max((int(state.get("refreshes", 0)) for state in opt.state.values()), default=0)


def log_diagnostics(optimizer: Any, log: Log, every: int = 50) -> Any:
    """Call ``log(scalars(optimizer))`` after every ``every``-th step, in whatever loop; ``.remove()`` ends it.

    Args:
        optimizer: of this library, or a trainer's wrapper around one.
        log: a function of a dictionary of numbers: ``wandb.log``, ``trainer.log``, ``accelerator.log``,
            :class:`TensorBoard`.
        every: steps between two entries. One reads the whole state, on the host.

    >>> import torch
    >>> from hessiod.torch import AdamW
    >>> theta = torch.nn.Parameter(torch.ones(2))
    >>> opt = AdamW([theta])
    >>> handle = log_diagnostics(opt, print, every=2)
    >>> for _ in range(3):
    ...     theta.grad = torch.ones(2)
    ...     _ = opt.step()
    {'hessiod/step': 2}
    """
    check_every(every)
    opt = unwrapped(optimizer)

    def stepped(*_: Any) -> None:
        if opt.steps % every == 0:
            log(scalars(opt))

    return opt.register_step_post_hook(stepped)
