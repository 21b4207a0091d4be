"""Curvature from a training loop that somebody else wrote: two hooks on the model, nothing in the loop.

A Gauss-Newton estimate needs the model's output and which targets count. Both are there while the loop's own backward
passes the output: the gradient that arrives says which targets the loss depends on, and the graph below is still whole.
So the estimate is made inside that backward, whatever computed and scaled the loss. A Hutchinson estimate needs the
loss of a fresh forward, which is run just before the loop's own, with the same arguments and the same dropout.

A compiled graph may be good for one backward only, and may hold the path from logits to loss inside of it. There
Gauss-Newton takes a fresh forward too, as the model was written; and under DistributedDataParallel with static_graph,
which takes the first use of a graph for the backward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo  # torch.compiler.disable imports all of dynamo
from torch.nn.parallel import DistributedDataParallel

from hessiod.backends_torch.adapter import RuleOptimizer
from hessiod.backends_torch.derivatives.parallel import wrappers_of
from hessiod.backends_torch.derivatives.places import nodes
from hessiod.backends_torch.derivatives.refusals import reentrant_checkpoint
from hessiod.backends_torch.kronecker.optimizer import KroneckerOptimizer
from hessiod.backends_torch.second_order import CurvatureOptimizer
from hessiod.core.errors import InvalidArgument, InvalidState

Closure = Callable[[], Any]

CASTS = ("ToCopyBackward0",)
"""Nodes that trainers put on a model's output, beside the path from it to a loss that the model works out itself."""


class CurvatureHook:
    """Gives ``optimizer`` its curvature whenever it is due, from the training forwards and backwards of ``model``.

    SophiaG, K-FAC, SP-NGD and THOR take it from the loop's own graph, also over several micro-batches, under autocast
    and with a scaled loss. SophiaH, AdaHessian and DiagonalNewton run one more forward, for which the model's output
    must hold the loss. First-order rules and Apollo need nothing, and nothing is done.

    An optimizer has one hook: a new one takes the place of the old.

    Args:
        model: the module whose output is the logits, or holds them.
        optimizer: of this library, or a trainer's wrapper around one (an attribute ``optimizer``).
        logits: from the model's output to the logits, the classes on the last axis. By default the output itself, its
            ``logits``, or the first tensor of a tuple that is no scalar.
        loss: from the model's output to the scalar loss, for Hutchinson's estimate; by default its ``loss``.
        scaler: a GradScaler that unscales gradients and calls ``step`` only where they are finite, as trainers do.
            After a step that it skipped call :meth:`skip`. Not needed in loops that call ``scaler.step(optimizer)``.
        processes: of so many processes the loop divides a loss by the mean number of targets, as Hugging Face's Trainer
            does (``num_items_in_batch``), and not by those of its own batch.

    >>> import torch
    >>> from torch.nn import functional as F
    >>> from hessiod.torch import SophiaG
    >>> model = torch.nn.Linear(3, 2)
    >>> opt = SophiaG(model.parameters(), every=2)
    >>> with CurvatureHook(model, opt):
    ...     for _ in range(3):                              # no word of curvature in the loop
    ...         F.cross_entropy(model(torch.ones(4, 3)), torch.tensor([0, 1, 1, 0])).backward()
    ...         _ = opt.step()
    ...         opt.zero_grad()
    >>> opt.state[model.weight]["refreshes"]                # at steps 1 and 3
    2
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Any,
        *,
        logits: Callable[[Any], Tensor] | None = None,
        loss: Callable[[Any], Tensor] | None = None,
        scaler: Any = None,
        processes: int = 1,
    ) -> None:
        # DistributedDataParallel may put a node of its own on all outputs, which is good for one backward
        self.model = model = model.module if isinstance(model, DistributedDataParallel) else model
        self.optimizer: Any = unwrapped(optimizer)
        self._logits, self._loss = logits or logits_of, loss or loss_of
        self._waiting: dict[int, tuple[Tensor, Closure | None]] = {}
        self._inside, self._undo = False, list[Callable[[], Any]]()
        self._processes = processes
        opt = self.optimizer
        if not isinstance(opt, CurvatureOptimizer | KroneckerOptimizer):
            return
        if "_hook" in vars(opt):  # of a run that was broken off
            vars(opt)["_hook"].remove()
        self._set(opt, "_hook", self)
        if self.hutchinson:
            self._before_forwards()
        else:
            self._undo.append(model.register_forward_hook(self._forward_ended, with_kwargs=True).remove)
            self._undo.append(opt.register_step_post_hook(lambda *_: self._waiting.clear()).remove)
        hint = f"the hook on {type(model).__name__} saw no training forward that led to a backward"
        self._set(opt, "_due_hint", hint)
        if processes > 1 and isinstance(opt, KroneckerOptimizer):
            self._set(opt, "_targets_of_all", True)
        if scaler is not None:
            self._set(opt, "_step_supports_amp_scaling", False)
            if isinstance(opt, KroneckerOptimizer):
                self._set(opt, "_grad_scaler", scaler)

    @property
    def hutchinson(self) -> bool:
        """Whether the optimizer's estimate needs the loss, and not only the model's output."""
        return self.optimizer.param_groups[0].get("estimator") == "hutchinson"

    def skip(self) -> None:
        """Drop what was gathered for a step that was not taken; nothing happens after one that was."""
        self._waiting.clear()
        self.optimizer._settled()

    def remove(self) -> None:
        """Take the hooks off; model and optimizer are as they were."""
        while self._undo:
            self._undo.pop()()

    def __enter__(self) -> CurvatureHook:
        return self

    def __exit__(self, *_: Any) -> None:
        self.remove()

    def _set(self, owner: Any, name: str, value: Any) -> None:
        before = vars(owner).get(name, owner)  # the owner itself stands for "not its own"
        setattr(owner, name, value)
        self._undo.append(lambda: delattr(owner, name) if before is owner else setattr(owner, name, before))

    def _wanted(self) -> bool:
        return torch.is_grad_enabled() and not self._inside and self.optimizer.curvature_due

    # Gauss-Newton: inside the loop's backward

    @_disable_dynamo
    def _forward_ended(self, model: nn.Module, arguments: Any, options: dict[str, Any], output: Any) -> None:
        if not self._wanted():
            return
        logits = self._logits(output)
        if not isinstance(logits, Tensor) or logits.grad_fn is None:
            raise InvalidState(
                f"curvature: the output of {type(model).__name__} holds no logits with a graph; pass logits=, a "
                "function from the output to them, or the module that makes them as the model"
            )
        node, place = source(logits)
        graph, again = list(nodes(logits)), None
        if isinstance(self.optimizer, KroneckerOptimizer):
            refuse_layers(self.optimizer, model, graph)
        elif is_compiled(graph) or self._static():
            again = self._fresh(self._forward(arguments, options))
            loss = self._loss(output)
            if loss is not None and loss.grad_fn is node:
                self._within(self.optimizer.update_curvature, closure=again)
                return
        key = id(logits)
        self._waiting[key] = logits, again  # not in the node's hook: it and the logits would hold each other for ever
        node.register_prehook(lambda grads: self._backward_came(key, grads[place]))

    def _static(self) -> bool:
        params = [param for group in self.optimizer.param_groups for param in group["params"]]
        return any(wrapper.static_graph for wrapper in wrappers_of(params))

    def _fresh(self, forward: Closure) -> Closure:
        """A forward like the one that ended, to the loss, if there is one, and the logits."""

        def closure() -> tuple[Tensor | None, Tensor | None]:
            output = forward()
            return self._loss(output), self._logits(output)

        return closure

    def _backward_came(self, key: int, grad: Tensor | None) -> None:
        logits, again = self._waiting.pop(key, (None, None))  # absent in the estimate's own passage
        if logits is None or grad is None:
            return
        used = grad != 0
        if self.optimizer.param_groups[0]["likelihood"] == "categorical":
            used = used.any(dim=-1)
        given: dict[str, Any] = {"logits": logits} if again is None else {"closure": again}
        self._within(self.optimizer.update_curvature, mask=used, **given)

    # Hutchinson: just before the loop's forward

    def _before_forwards(self) -> None:
        handle = self.model.register_forward_pre_hook(self._forward_starts, with_kwargs=True)
        self._undo.append(handle.remove)

    @_disable_dynamo
    def _forward_starts(self, model: nn.Module, arguments: Any, options: dict[str, Any]) -> None:
        if not self._wanted():
            return

        forward = self._forward(arguments, options)

        def closure() -> Tensor:
            return checked(self._loss(forward()), model)

        summed = options.get("num_items_in_batch") is not None  # the loss is a part of the whole batch's mean
        scale = 1.0 / self._processes if summed else 1.0
        self._within(self.optimizer.update_curvature, closure=closure, summed=summed, scale=scale)

    # Both

    def _forward(self, arguments: Any, options: dict[str, Any]) -> Closure:
        """The model's forward with these arguments, under the autocast that is on now."""
        device = self._device
        enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)

        def forward() -> Any:
            with torch.autocast(device, enabled=enabled, dtype=dtype):
                return self.model(*arguments, **options)

        return forward

    @property
    def _device(self) -> str:
        return next(param for group in self.optimizer.param_groups for param in group["params"]).device.type

    def _within(self, call: Callable[..., None], **options: Any) -> None:
        self._inside = True
        try:
            with torch.autocast(self._device, enabled=False):  # derivatives are taken outside of it, as backward is
                call(**options)
        finally:
            self._inside = False


def unwrapped(optimizer: Any) -> RuleOptimizer:
    """The optimizer of this library inside a trainer's wrappers."""
    found = optimizer
    while not isinstance(found, RuleOptimizer):
        if not hasattr(found, "optimizer"):
            raise InvalidArgument(
                f"optimizer: found {type(found).__name__}, expected one of hessiod.torch, such as SophiaG"
            )
        found = found.optimizer
    return found


def source(logits: Tensor) -> tuple[Any, int]:
    """The node that made the logits, and as which of its outputs, before any cast."""
    node, place = logits.grad_fn, logits.output_nr
    while node.name() in CASTS:  # type: ignore[union-attr]
        node, place = node.next_functions[0]  # type: ignore[union-attr]
    return node, place


def is_compiled(graph: Sequence[Any]) -> bool:
    """Whether a part of the graph was compiled."""
    return any(node.name() == "CompiledFunctionBackward" for node in graph)


def refuse_layers(optimizer: KroneckerOptimizer, model: nn.Module, graph: Sequence[Any]) -> None:
    """Raise where hooks on layers do not run in the forward that the loop's backward goes back through."""
    found, way_out = "", ""
    if is_compiled(graph):
        found, way_out = "a compiled", "train the model as it was written (no torch.compile)"
    elif reentrant_checkpoint(graph) is not None:
        found, way_out = "reentrant checkpointing in", "use checkpoint(..., use_reentrant=False)"
    if found:
        raise InvalidState(
            f"curvature: found {type(optimizer).__name__} with {found} {type(model).__name__}, in which its hooks on "
            f"layers do not run; {way_out}, or use SophiaG"
        )


def logits_of(output: Any) -> Tensor | None:
    """The logits in what a model returned."""
    if isinstance(output, dict):
        return output.get("logits")
    if isinstance(output, tuple | list):
        return next((part for part in output if isinstance(part, Tensor) and part.dim()), None)
    return output if isinstance(output, Tensor) else getattr(output, "logits", None)


def loss_of(output: Any) -> Tensor | None:
    """The loss in what a model returned; a tuple that holds one begins with it."""
    if isinstance(output, tuple | list):
        output = output[0] if output else None
    elif isinstance(output, dict):
        output = output.get("loss")
    elif not isinstance(output, Tensor):
        output = getattr(output, "loss", None)
    return output if isinstance(output, Tensor) and output.numel() == 1 else None


def checked(loss: Any, model: nn.Module) -> Tensor:
    """A loss, or the error that says what to do without."""
    if loss is None:
        raise InvalidState(
            f"curvature: Hutchinson's estimate needs the loss, and the output of {type(model).__name__} holds none; "
            "let the model compute it (Hugging Face: pass labels, without label_smoothing_factor or "
            "compute_loss_func), call update_curvature(closure=...) in the loop, or use SophiaG, which needs none"
        )
    return loss
