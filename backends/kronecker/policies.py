"""When statistics are taken and when they are inverted: the policies of K-FAC, SP-NGD and THOR.

Each has ``wanted``, which statistics of a layer the coming step wants, and ``fold``, what new statistics make of the
layer's state. The rules themselves are in core/kronecker; a layer's state holds their counters as plain numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hessiod.core.kronecker import factors, fixed, stale, trace_rule

State = Mapping[str, Any]
Group = Mapping[str, Any]


class Policy:
    """A policy on the arrays of one backend: ``xp`` is its namespace."""

    def __init__(self, xp: Any) -> None:
        self.xp = xp

    def inverts(self, step: int, group: Group) -> bool:
        """Whether layers of which there are no new statistics may be inverted at ``step``."""
        return False


class Fixed(Policy):
    """K-FAC's: a running average, statistics every ``factor_every`` steps, inverses every ``inverse_every``."""

    def wanted(self, layer: Any, state: State, step: int, group: Group) -> tuple[str, ...]:
        """All, or none."""
        return layer.statistics if "refreshes" not in state or fixed.due(step, group["factor_every"]) else ()

    def inverts(self, step: int, group: Group) -> bool:
        """Every ``inverse_every`` steps."""
        return fixed.due(step, group["inverse_every"])

    def fold(
        self, layer: Any, state: State, found: Mapping[str, Any], step: int, group: Group, average: Any = None
    ) -> tuple[dict[str, Any], bool]:
        """The state's new entries, and whether the layer is to be inverted.

        ``average`` stands for :func:`hessiod.core.kronecker.factors.average`, for a backend that takes all together.
        """
        average, refreshes = average or factors.average, state.get("refreshes", 0)
        if not found:
            return {}, self.inverts(step, group)
        refreshes += 1
        scalars = factors.average_scalars(decay=group["factor_decay"], refreshes=refreshes)
        new: dict[str, Any] = {"refreshes": refreshes}
        for name, statistic in found.items():
            earlier = state.get(f"factor_{name}")
            new[f"factor_{name}"] = statistic if earlier is None else average(self.xp, earlier, statistic, **scalars)
        return new, fixed.inverse_due(step, group["inverse_every"], refreshes)


class Stale(Policy):
    """SP-NGD's: every statistic at an interval of its own."""

    def wanted(self, layer: Any, state: State, step: int, group: Group) -> tuple[str, ...]:
        """Those whose interval is over."""
        return tuple(name for name in layer.statistics if self._interval(state, name).due(step))

    def fold(
        self, layer: Any, state: State, found: Mapping[str, Any], step: int, group: Group, average: Any = None
    ) -> tuple[dict[str, Any], bool]:
        """The new statistics in the place of the old, which are kept to compare the next with."""
        new: dict[str, Any] = {}
        for name, statistic in found.items():
            last, second = state.get(f"factor_{name}"), state.get(f"earlier_{name}")
            similar = [self._similar(statistic, earlier, group["alpha"]) for earlier in (last, second)]
            interval = self._interval(state, name).after(step, *similar)
            new |= {f"factor_{name}": statistic, f"interval_{name}": (interval.next, interval.last, interval.before)}
            if last is not None:
                new[f"earlier_{name}"] = last
        return new, bool(new)

    def _interval(self, state: State, name: str) -> stale.Interval:
        return stale.Interval(*state.get(f"interval_{name}", ()))

    def _similar(self, statistic: Any, earlier: Any, alpha: float) -> bool:
        return earlier is not None and float(stale.change(self.xp, statistic, earlier)) < alpha


class Trace(Policy):
    """THOR's: a layer is refreshed, kept or frozen, by its trace; with ``thresholds=None`` refreshed every time."""

    def wanted(self, layer: Any, state: State, step: int, group: Group) -> tuple[str, ...]:
        """All when the layer is looked at; none between, or when it is frozen."""
        return layer.statistics if self._check(state).due(step) else ()

    def fold(
        self, layer: Any, state: State, found: Mapping[str, Any], step: int, group: Group, average: Any = None
    ) -> tuple[dict[str, Any], bool]:
        """The new statistics if the layer is refreshed, and when it is looked at next."""
        if not found:
            return {}, False
        check, trace = self._check(state), self._trace(layer, found, group["damping"])
        verdict = trace_rule.REFRESH
        if group["thresholds"] is not None:
            verdict = trace_rule.verdict(trace, check.trace, group["thresholds"])
        pace = dict(every=group["factor_every"], growth=group["growth"], longest=group["longest"])
        check = check.after(step, verdict, trace, **pace)
        new: dict[str, Any] = {"check": (check.next, check.interval, check.trace)}
        if verdict == trace_rule.REFRESH:
            new |= {f"factor_{name}": statistic for name, statistic in found.items()}
        return new, verdict == trace_rule.REFRESH

    def _check(self, state: State) -> trace_rule.Check:
        return trace_rule.Check(*state.get("check", ()))

    def _trace(self, layer: Any, found: Mapping[str, Any], damping: float) -> float:
        out, size = layer.shape
        if layer.statistics == ("f",):
            total = float(found["f"][0].sum() + found["f"][2].sum())
            return trace_rule.damped_trace(total, out * size, 1.0, 1, damping)
        traces = layer.trace_a(found["a"]), self.xp.trace(found["g"])
        return float(trace_rule.damped_trace(traces[0], size, traces[1], out, damping).sum())  # over groups
