"""Lightning: a callback for automatic optimization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hessiod.backends.registry import require

require("lightning", extra="lightning")

from lightning.pytorch import Callback, LightningModule, Trainer  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402

from hessiod.core.errors import InvalidArgument  # noqa: E402
from hessiod.torch import CurvatureHook, scalars  # noqa: E402


class LossFromTrainer(CurvatureHook):
    """A hook that leaves Hutchinson's estimate to the callback, which sees the loss.

    Under DistributedDataParallel ``training_step`` runs inside of a call of the LightningModule, whose output is then a
    loss. That call is the first one after the wrapper's own, and passed over.
    """

    _step_is_next = False
    _step: tuple[Any, ...] | None = None

    def _before_forwards(self) -> None:
        pass

    def pass_over(self, wrapper: nn.Module, module: LightningModule) -> None:
        """Look away from the calls of ``module`` that ``wrapper`` makes."""

        def wrapper_starts(*_: Any) -> None:
            self._step_is_next = True

        def module_starts(_: nn.Module, arguments: tuple[Any, ...]) -> None:
            if self._step_is_next:
                self._step_is_next, self._step = False, arguments

        self._undo.append(wrapper.register_forward_pre_hook(wrapper_starts).remove)
        self._undo.append(module.register_forward_pre_hook(module_starts).remove)

    def _forward_ended(self, model: nn.Module, arguments: Any, options: dict[str, Any], output: Any) -> None:
        if arguments is self._step:
            self._step = None
        else:
            super()._forward_ended(model, arguments, options, output)


class Curvature(Callback):
    """Gives the optimizer of ``configure_optimizers`` its curvature when it is due.

    Args:
        module: the submodule whose output is the logits, by name or as a function of the LightningModule; by default
            the LightningModule itself, for a ``training_step`` that calls ``self(x)``.
        closure: for Hutchinson's estimate, a function of the LightningModule and the batch that returns the loss.
            Without it the estimate is of the loss that ``training_step`` returned, through its own graph: a forward
            cheaper, but fused attention and compiled models have no second derivative there.
        logits: from the submodule's output to the logits; see :class:`~hessiod.torch.CurvatureHook`.
        log: whether to log the optimizer's diagnostics to the Trainer's loggers, every ``log_every_n_steps``.

    With ``precision="16-mixed"`` a step that overflows drops its estimate too, and curvature is due still; gradients
    may be clipped.

        Trainer(callbacks=[Curvature()]).fit(module)
    """

    def __init__(
        self,
        module: str | Callable[[LightningModule], nn.Module] = "",
        *,
        closure: Callable[[LightningModule, Any], Tensor] | None = None,
        logits: Callable[[Any], Tensor] | None = None,
        log: bool = True,
    ) -> None:
        self.module, self.closure, self.logits, self.log = module, closure, logits, log
        self.hook: CurvatureHook | None = None
        self._batch: Any = None
        self._tried = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the hooks on; refuse what was not made to work."""
        refuse_settings(trainer, pl_module)
        module = pl_module.get_submodule(self.module) if isinstance(self.module, str) else self.module(pl_module)
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        self._remove()
        self.hook = LossFromTrainer(module, trainer.optimizers[0], logits=self.logits, scaler=scaler)
        if isinstance(trainer.strategy.model, DistributedDataParallel):
            self.hook.pass_over(trainer.strategy.model, pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Keep the batch for a fresh forward."""
        self._batch = batch if self.closure is not None else None

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Give Hutchinson's estimate; Gauss-Newton's comes in the backward."""
        opt = self.hook.optimizer  # type: ignore[union-attr]
        if not self.hook.hutchinson or not opt.curvature_due:  # type: ignore[union-attr]
            return
        if self.closure is not None:

            def closure() -> Tensor:
                with trainer.precision_plugin.forward_context():
                    return self.closure(pl_module, self._batch)  # type: ignore[misc]

            opt.update_curvature(closure=closure)
        else:
            scaler = getattr(trainer.precision_plugin, "scaler", None)
            scale = 1.0 if scaler is None else scaler.get_scale()
            opt.update_curvature(loss=loss, scale=scale / trainer.accumulate_grad_batches)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Note that a step is tried."""
        self._tried = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Forget the estimate of a step that the scaler skipped, and log."""
        self._batch = None
        if self._tried and self.hook is not None:
            self._tried = False
            self.hook.skip()
            every = trainer.log_every_n_steps  # type: ignore[attr-defined]
            if self.log and trainer.loggers and trainer.global_step % every == 0:
                pl_module.log_dict(scalars(self.hook.optimizer))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the hooks off."""
        self._remove()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Take the hooks off."""
        self._remove()

    def _remove(self) -> None:
        if self.hook is not None:
            self.hook.remove()
        self.hook = None


def refuse_settings(trainer: Trainer, module: LightningModule) -> None:
    """Raise for settings of the Trainer under which no curvature can be given."""
    if not module.automatic_optimization:
        raise InvalidArgument(
            "automatic_optimization: found False, expected True; in a loop of your own call opt.update_curvature, or "
            "put hessiod.torch.CurvatureHook on the module"
        )
    if len(trainer.optimizers) != 1:
        raise InvalidArgument(
            f"configure_optimizers: found {len(trainer.optimizers)} optimizers, expected one; Lightning steps several "
            "only in manual optimization"
        )
    strategy = type(trainer.strategy).__name__
    if any(name in strategy for name in ("FSDP", "DeepSpeed", "ModelParallel")):
        raise InvalidArgument(
            f"strategy: found {strategy}, which keeps the gradients or the optimizer to itself; use strategy='ddp'"
        )
