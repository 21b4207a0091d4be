"""Diagnostics as numbers for a logger, under the names that hessiod.torch gives them too."""

from __future__ import annotations

from collections.abc import Iterator

from hessiod.backends.logs import intervals, named, spread
from hessiod.backends_mindspore.adapter import RuleOptimizer
from hessiod.backends_mindspore.kronecker.optimizer import KroneckerOptimizer
from hessiod.backends_mindspore.second_order import CurvatureOptimizer


def scalars(optimizer: RuleOptimizer) -> dict[str, float]:
    """What :meth:`~hessiod.backends_mindspore.adapter.RuleOptimizer.diagnostics` says, and the pace, as plain numbers.

    - ``hessiod/clip_fraction``, ``hessiod/curvature/50%`` and so on; with several groups ``hessiod/0/clip_fraction``.
    - ``hessiod/step``, and with curvature ``hessiod/refreshes``, the estimates folded in so far;
      ``hessiod/refused``, the steps that were not taken because something was not finite.
    - ``hessiod/interval``: steps between two estimates. K-FAC, SP-NGD and THOR, which have one for each layer or
      statistic: ``hessiod/interval/min``, ``/mean`` and ``/max``.
    - ``hessiod/damping``, where there is one.

    >>> import mindspore as ms
    >>> from hessiod.mindspore import AdamW
    >>> theta = ms.Parameter(ms.Tensor([1.0, 2.0]), name="theta")
    >>> scalars(AdamW([theta]))
    {'hessiod/step': 0, 'hessiod/refused': 0}
    """
    counts = {"step": optimizer.steps, "refused": int(optimizer.refused.asnumpy())}
    return named(optimizer.diagnostics(), counts | dict(pace(optimizer)))


def pace(optimizer: RuleOptimizer) -> Iterator[tuple[str, float]]:
    """How often curvature is taken, how often it was, and the damping."""
    if isinstance(optimizer, KroneckerOptimizer):
        yield "damping", optimizer.damping
        every = optimizer.settings["factor_every"]
        states = optimizer.states.values()
        yield from spread([number for state in states for number in intervals(state.numbers(), every)])
    elif isinstance(optimizer, CurvatureOptimizer):
        yield "interval", optimizer.every
        if "damping" in optimizer.hyperparameter_names:
            place = optimizer.hyperparameter_names.index("damping")
            yield "damping", float(optimizer.hyperparameter_values[place].asnumpy())
        yield "refreshes", int(optimizer.refreshes.asnumpy())
