"""Hugging Face's Trainer: a callback."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hessiod.backends.registry import require

require("transformers", extra="transformers")

from transformers import TrainerCallback  # noqa: E402

from hessiod.core.errors import InvalidArgument  # noqa: E402
from hessiod.torch import CurvatureHook, scalars  # noqa: E402


class Curvature(TrainerCallback):
    """Gives the optimizer that ``Trainer(optimizers=(opt, scheduler))`` was built with its curvature when it is due.

    Args:
        log: a function of a dictionary of numbers, such as ``trainer.log``; it is called with the optimizer's
            diagnostics at the steps at which the Trainer logs.
        logits, loss: where the model's output has other names for them; see :class:`~hessiod.torch.CurvatureHook`.

    With ``fp16=True`` a step that overflows drops its estimate too, and curvature is due still.

        trainer = Trainer(model, args, train_dataset=data, optimizers=(SophiaG(model.parameters()), None))
        trainer.add_callback(Curvature(log=trainer.log))
        trainer.train()
    """

    def __init__(
        self,
        log: Callable[[dict[str, float]], Any] | None = None,
        *,
        logits: Callable[[Any], Any] | None = None,
        loss: Callable[[Any], Any] | None = None,
    ) -> None:
        self.log, self._options = log, dict(logits=logits, loss=loss)
        self.hook: CurvatureHook | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **found: Any) -> None:
        """Put the hooks on; refuse what was not made to work."""
        refuse_settings(args)
        optimizer = found["optimizer"]
        self._remove()
        self.hook = CurvatureHook(
            found["model"],
            optimizer,
            scaler=getattr(optimizer, "scaler", None),
            processes=args.world_size if args.average_tokens_across_devices else 1,
            **self._options,
        )

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **found: Any) -> None:
        """Forget the estimate of a step that the scaler skipped."""
        if self.hook is not None:
            self.hook.skip()

    def on_step_end(self, args: Any, state: Any, control: Any, **found: Any) -> None:
        """Log diagnostics where the Trainer logs; its own callback has decided that by now."""
        if self.log is not None and self.hook is not None and control.should_log:
            self.log(scalars(self.hook.optimizer))
            control.should_log = True  # trainer.log() has put it out, and the Trainer's own entry is still to come

    def on_train_end(self, args: Any, state: Any, control: Any, **found: Any) -> None:
        """Take the hooks off."""
        self._remove()

    def _remove(self) -> None:
        if self.hook is not None:
            self.hook.remove()
        self.hook = None


WAY_OUT = {
    "deepspeed": "it replaces the optimizer; train with DistributedDataParallel (torchrun, no deepspeed=)",
    "fsdp": "its gradients exist only in backward; train with DistributedDataParallel (torchrun, no fsdp=)",
}


def refuse_settings(args: Any) -> None:
    """Raise for settings of the Trainer under which no curvature can be given."""
    settings: Mapping[str, Any] = vars(args)
    for name, way_out in WAY_OUT.items():
        if settings.get(name):
            raise InvalidArgument(f"{name}: found {settings[name]!r}, expected none; {way_out}")
    if args.n_gpu > 1:
        raise InvalidArgument(
            f"n_gpu: found {args.n_gpu}, which trains through nn.DataParallel, whose copies of the model live for one "
            "forward; start the script with torchrun, or set CUDA_VISIBLE_DEVICES to one device"
        )
