"""What every second-order optimizer adds to the adapter: when curvature is due, and how it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from hessiod.backends_torch.adapter import Estimates, RuleOptimizer
from hessiod.backends_torch.arrays import same
from hessiod.backends_torch.curvature import GaussNewtonBartlett, Hutchinson
from hessiod.backends_torch.fast import Members
from hessiod.core.errors import InvalidArgument, InvalidState
from hessiod.core.rule import Hyperparameter
from hessiod.core.settings import check_settings

DRAWS = ("likelihood", "fraction", "samples", "probe")
"""Settings that not every estimator has; None where it has not."""

DUE_HINT = "call update_curvature(loss=loss, logits=logits) before loss.backward() whenever opt.curvature_due"
"""What to do where an estimate is missing; a hook that should have given it says something else."""

SCALE = Hyperparameter(1.0, low=0.0, open_low=True, way_out="give what the loss was multiplied by")


@contextmanager
def scaler_forgotten_on_error(optimizer: Any) -> Iterator[None]:
    """Drop what a GradScaler left for this step if the step raises; the scaler itself does so only if it returns."""
    try:
        yield
    except BaseException:
        for name in ("grad_scale", "found_inf"):
            vars(optimizer).pop(name, None)
        raise


class CurvatureOptimizer(RuleOptimizer):
    """A rule that folds a curvature estimate into its state every ``every`` steps, first at step 1.

    An estimate is given by :meth:`update_curvature` between two steps, where :attr:`curvature_due` says so. Several
    calls before a step (micro-batches) add up to one estimate.

    With a ``torch.amp.GradScaler`` a step that the scaler skips drops its estimate too, and curvature is due still.
    """

    _step_supports_amp_scaling = True
    """A GradScaler then calls ``step`` also when it found infinity, with ``grad_scale`` and ``found_inf`` set."""

    shared = ("nonfinite", "every", "seed", "estimator", "timing", "warm_start", *DRAWS)

    _due_hint = DUE_HINT

    _pending: GaussNewtonBartlett | Hutchinson | None = None

    def __init__(self, params: Any, hyperparameters: Mapping[str, Any], **settings: Any) -> None:
        check_settings({k: value for k, value in hyperparameters.items() if value is not None or k not in DRAWS})
        super().__init__(params, hyperparameters, **settings)

    @property
    def curvature_due(self) -> bool:
        """Whether the coming step wants a curvature estimate: at steps 1, 1 + every, 1 + 2 * every, ...

        Also when a parameter was added or unfrozen that has not moved yet, in groups with ``missing="raise"``.
        """
        return self._regularly_due(self.steps) or (self.steps > 0 and any(self._newcomers()))

    def _regularly_due(self, steps: int) -> bool:
        group = self.param_groups[0]
        return steps % group["every"] == 0 and (steps > 0 or group.get("timing") != "official")

    def _newcomers(self) -> Iterator[bool]:
        if same(list(self.state), self._every()):
            return
        for group in self.param_groups:
            if group["missing"] != "raise":  # a parameter may never get a gradient
                continue
            if not all(map(self.state.__contains__, group["params"])):
                yield from (param.requires_grad and param not in self.state for param in group["params"])

    def refreshes_by(self, step: int) -> int:
        """How many estimates the first ``step`` steps fold in when they are given exactly where they are due."""
        return sum(self._regularly_due(steps) for steps in range(step))

    def update_curvature(
        self,
        *,
        loss: Tensor | None = None,
        logits: Tensor | None = None,
        closure: Callable[[], Any] | None = None,
        scale: float = 1.0,
        mask: Tensor | None = None,
        summed: bool = False,
        method: str = "auto",
    ) -> None:
        """Add an estimate of the curvature at the present parameters, to be used by the next step.

        Args:
            loss: the scalar loss of a forward pass whose graph still exists; call this before ``loss.backward()``. Of a
                micro-batch, its own mean loss.
            logits: the model's output from which the loss was computed, with the classes on the last axis. Estimators
                that sample targets need it.
            closure: instead of both, a function that runs a fresh forward and returns the loss, or the pair
                (loss, logits). It may run several times, and leaves weights, ``.grad``, random states and buffers as
                they are. Fused attention, compiled models and DistributedDataParallel are seen to, and what has no
                exact second derivative is refused by name, as in :func:`hessiod.torch.hvp`.
            scale: what the loss given here was multiplied by: ``scaler.get_scale()`` for ``scaler.scale(loss)``, 1 / 4
                for a loss divided by four micro-batches. The estimate is that of the loss itself.
            mask: for estimators that sample targets: which ones count, of the logits' shape without the classes.
                Without it those do to which the loss has a gradient that is not exactly zero. Give it where a target
                may be met exactly: a saturated sigmoid, a perfect fit.
            summed: for Hutchinson's estimate, whether the losses of a step's calls add up to its loss, each divided by
                the number of targets in all of them; else the step's loss is their mean. Gauss-Newton counts targets.
            method: how a closure is differentiated twice, as in :func:`hessiod.torch.hvp`: "auto" is exact;
                "finite-difference" is what Hutchinson's estimate needs under ``fully_shard``.
        """
        SCALE.check("scale", scale)
        if (closure is None) == (loss is None and logits is None):
            raise InvalidArgument("update_curvature: expected either loss= (and logits=) or closure=, not both or none")
        if closure is None and method != "auto":
            raise InvalidArgument(f"method: found {method!r} with loss=, whose graph is differentiated; pass closure=")
        if self._pending is None:
            self._pending = self._new_estimate()
        self._pending.check_summed(summed)
        try:
            if closure is not None:
                self._pending.from_closure(closure, mask, scale, method)
            else:
                with torch.enable_grad():
                    self._pending.from_graph(loss, logits, mask, scale)
        finally:
            if self._pending.calls == 0:
                self._pending = None

    def _new_estimate(self) -> GaussNewtonBartlett | Hutchinson:
        group = self.param_groups[0]
        params = self._movable()
        if group["estimator"] == "hutchinson":
            key = (group["seed"], self.steps + 1, group["probe"], group["samples"])
            return Hutchinson(params, *key, indices=self._positions())
        return GaussNewtonBartlett(params, group["seed"], self.steps + 1, group["likelihood"], group["fraction"])

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; ``closure`` re-evaluates the model, calls ``backward`` and returns the loss."""
        with scaler_forgotten_on_error(self):
            scale = vars(self).get("grad_scale")
            if self._capturable:  # what the scaler has found is then the device's to look at
                self._inverse_scale = 1.0 if scale is None else 1.0 / scale.double()
                return super().step(closure)
            if float(vars(self).get("found_inf") or 0.0):
                self._settled()
                return None
            self._inverse_scale = 1.0 if scale is None else 1.0 / float(scale)
            return super().step(closure)

    def _estimates(self) -> Estimates | None:
        if self._pending is None:
            if not self.state if self._capturable else self.curvature_due:
                raise InvalidState(f"curvature is due at step {self.steps + 1}: {self._due_hint}")
            return None
        if not set(self._movable()) <= set(self._pending.params):
            raise InvalidState("step: parameters were added or unfrozen after update_curvature; do that before it")
        estimates = self._pending.estimates()
        if isinstance(self._pending, Hutchinson):  # the Hessian of the loss; when climbing, minus it is minimised
            for group in self.param_groups:
                for param in group["params"] if group["maximize"] else ():
                    estimates[param] = -estimates[param]
        return estimates

    def _only_initialises(self, work: Sequence[Members]) -> bool:
        return self._pending is None and super()._only_initialises(work)

    def _settled(self) -> None:
        self._pending = None

    def _check_state(self, state_dict: Mapping[str, Any]) -> None:
        super()._check_state(state_dict)
        found, expected = state_dict["param_groups"][0]["estimator"], self.defaults["estimator"]
        if found != expected:
            raise InvalidArgument(
                f"state_dict: found curvature of the estimator {found!r}, expected {expected!r}; it was not written by "
                f"{type(self).__name__}"
            )

    def state_dict(self) -> dict[str, Any]:
        """The whole state, between two steps; an estimate that no step has used yet cannot be saved."""
        if self._pending is not None:
            raise InvalidState("state_dict: update_curvature was called and its step is yet to come; save after step()")
        return super().state_dict()
