"""Accelerate: hooks on a prepared model and optimizer."""

from __future__ import annotations

from typing import Any

from hessiod.backends.registry import require

require("accelerate", extra="accelerate")

from accelerate import Accelerator  # noqa: E402
from accelerate.optimizer import AcceleratedOptimizer  # noqa: E402
from accelerate.utils import DistributedType  # noqa: E402

from hessiod.core.errors import InvalidArgument  # noqa: E402
from hessiod.torch import CurvatureHook  # noqa: E402

REFUSED = (DistributedType.DEEPSPEED, DistributedType.FSDP, DistributedType.MEGATRON_LM)


class Curvature(CurvatureHook):
    """Gives a prepared optimizer its curvature when it is due; the loop stays as it is.

    Args:
        accelerator: the Accelerator.
        model, optimizer: what ``accelerator.prepare`` returned.
        options: ``logits`` and ``loss`` of :class:`~hessiod.torch.CurvatureHook`.

    With ``mixed_precision="fp16"`` a step that overflows drops its estimate too, curvature is due still, and
    ``accelerator.optimizer_step_was_skipped`` says so.

        model, opt, loader = accelerator.prepare(model, SophiaG(model.parameters()), loader)
        Curvature(accelerator, model, opt)
    """

    def __init__(self, accelerator: Accelerator, model: Any, optimizer: Any, **options: Any) -> None:
        if not isinstance(optimizer, AcceleratedOptimizer):
            raise InvalidArgument(
                f"optimizer: found {type(optimizer).__name__}, expected what accelerator.prepare(optimizer) returned"
            )
        if accelerator.distributed_type in REFUSED:
            raise InvalidArgument(
                f"accelerator: found distributed_type {accelerator.distributed_type.value}, which keeps gradients or "
                "the optimizer to itself; use MULTI_GPU or MULTI_CPU (DistributedDataParallel)"
            )
        super().__init__(model, optimizer, scaler=accelerator.scaler, **options)
        step = optimizer.step

        def stepped(closure: Any = None) -> None:
            step(closure)
            if accelerator.sync_gradients:  # otherwise more micro-batches are to come
                self.skip()

        self._set(optimizer, "step", stepped)
