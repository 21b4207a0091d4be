"""Hooks that gather the sums behind A and G: for targets sampled from the model, or in the user's own backward.

A forward hook forms the second moment of a layer's inputs at once, because autocast and in-place operations may change
them later, and marks the place in the graph where the gradient of the output will appear.

Monte-Carlo Fisher: :meth:`Capture.sample` pulls a sampled residual back to those places, with ``torch.autograd.grad``,
which leaves ``.grad`` alone and does not work out gradients of weights. Empirical Fisher: the user's ``backward``
passes there, and a hook on each takes it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from hessiod.backends_torch.curvature import explained, used_by
from hessiod.backends_torch.derivatives.gauss_newton import residual_of, used_targets
from hessiod.backends_torch.kronecker.attention import attend
from hessiod.backends_torch.kronecker.discover import AnyLayer
from hessiod.backends_torch.kronecker.layers import Seen
from hessiod.backends_torch.kronecker.outputs import outputs_of
from hessiod.backends_torch.kronecker.sums import Sums
from hessiod.core.errors import InvalidArgument


class Record(NamedTuple):
    """A forward of a layer that waits for its backward."""

    layer: AnyLayer
    seen: Seen
    edge: GradientEdge


class Hook:
    """A hook that does nothing once its capture is gone, and whose copies and pickles never do anything."""

    def __init__(self, capture: Capture, method: str) -> None:
        self.capture, self.method = weakref.ref(capture), method

    def __call__(self, *arguments: Any) -> Any:
        """Pass the call on."""
        capture = self.capture()
        return None if capture is None else getattr(capture, self.method)(*arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return inert, ()


def nothing(*arguments: Any) -> None:
    """What a copied hook does."""


def inert() -> Callable[..., None]:
    """What a hook is copied to."""
    return nothing


class Capture:
    """Gathers :class:`Sums` from those of a model's layers that are ``due``."""

    def __init__(
        self,
        model: nn.Module,
        layers: list[AnyLayer],
        due: Callable[[], Mapping[AnyLayer, tuple[str, ...]]],
        *,
        empirical: bool,
        count: Callable[..., float],
        ranks: Any,
    ) -> None:
        self.due, self.empirical, self.count, self.ranks = due, empirical, count, ranks
        self.attentions = sorted(
            {m for la in layers for m in la.modules if isinstance(m, nn.MultiheadAttention)}, key=id
        )
        self.by_module = {(module, layer.label): layer for layer in layers for module in layer.modules}
        self.hooked: dict[nn.Module, Any] = {}
        self.hook = Hook(self, "forward")
        self.forget()
        model.register_forward_pre_hook(Hook(self, "model_starts"))
        if self.attentions or empirical:
            model.register_forward_hook(Hook(self, "model_ends"), always_call=True)

    def forget(self) -> None:
        """Drop everything gathered."""
        self.sums, self.records, self.paused = Sums(), list[Record](), False

    def arm(self) -> None:
        """Hook the layers of which statistics are due, and no others: a hook that does nothing takes 10 us a call.

        A forward of the model asks for it, and the end of a step, for models whose parts are called one by one.
        """
        due = self.due()
        if not due and not self.hooked:
            return
        wanted = {module for layer in due if not layer.label for module in layer.modules}
        for module in self.hooked.keys() - wanted:
            self.hooked.pop(module).remove()
        for module in wanted - self.hooked.keys():
            self.hooked[module] = module.register_forward_hook(self.hook, with_kwargs=True)

    # Hooks

    def model_starts(self, model: nn.Module, arguments: Any) -> None:
        """Hook the layers, and put attention's projections in the open."""
        self.arm()
        for module in self.attentions if self.attentions and self._gathers() else ():
            vars(module)["forward"] = attend(module, self._observer(module))

    def model_ends(self, model: nn.Module, arguments: Any, output: Any) -> None:
        """Give attention its own forward back, and count the targets of this output once its backward comes."""
        for module in self.attentions:
            vars(module).pop("forward", None)
        logits = logits_in(output) if self.empirical and self._gathers() else None
        if logits is not None and logits.requires_grad:
            number = self.count(logits)

            def backward(grad: Tensor) -> None:
                self.sums.targets += number

            logits.register_hook(backward)

    def _gathers(self) -> bool:
        return bool(self.due()) and torch.is_grad_enabled() and not self.paused

    def _observer(self, module: nn.Module) -> Callable[[str, Tensor, Tensor], Tensor]:
        def observe(label: str, x: Tensor, output: Tensor) -> Tensor:
            return self._observed(self.by_module[module, label], module, x, output)

        return observe

    def forward(self, module: nn.Module, arguments: Any, options: Any, output: Tensor) -> Tensor | None:
        """See one use of a layer."""
        layer = self.by_module[module, ""]
        x = arguments[0] if arguments else next(iter(options.values()))
        return self._observed(layer, module, x, output)

    def _observed(self, layer: AnyLayer, module: nn.Module, x: Tensor, output: Tensor) -> Tensor:
        if layer not in self.due() or self.paused or not (output.requires_grad and torch.is_grad_enabled()):
            return output
        if output._is_view():  # an in-place operation on a view would take its place in the graph away
            output = output.clone()
        with full_precision(x.device.type):
            record = Record(layer, layer.inputs(module, x), get_gradient_edge(output))
        if self.empirical:
            output.register_hook(lambda grad: None if self.paused else self._arrived([(record, grad)]))
        else:
            self.records.append(record)
        return output

    @torch.no_grad()
    def _arrived(self, pairs: Sequence[tuple[Record, Tensor]]) -> None:
        with full_precision(*{grad.device.type for _, grad in pairs}):
            outputs = outputs_of([(record.layer, grad, record.seen.context) for record, grad in pairs])
        for (record, _), output in zip(pairs, outputs, strict=True):
            self.sums.add(record.layer, record.seen, output)
            if self.ranks.overlap and "a" in self.due().get(record.layer, ()):
                self.ranks.start(record.layer, record.seen.total, record.seen.rows)

    # Targets sampled from the model

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Nothing is gathered inside: a checkpointed forward runs again there."""
        self.paused = True
        try:
            yield
        finally:
            self.paused = False

    def sample(self, loss: Tensor | None, logits: Tensor, mask: Any, seed: int, step: int, likelihood: str) -> None:
        """Pull a residual of sampled targets back from ``logits``, for those in ``mask`` or in ``loss``."""
        used = self.used(loss, logits, mask, likelihood)
        residual = residual_of(logits, likelihood, seed, step, self.sums.calls, self.ranks.draws)
        records, edges = self.records, [record.edge for record in self.records]
        if not edges:
            raise InvalidArgument(
                "logits: no covered layer was seen on the way to them; compute them by calling the model, after the "
                "last step and with gradients enabled"
            )
        with self.pause(), explained():
            grads = torch.autograd.grad(
                logits, edges, (residual * used).to(logits.dtype), retain_graph=True, allow_unused=True
            )
        self.records = [record for record, grad in zip(records, grads, strict=True) if grad is None]
        self._arrived([pair for pair in zip(records, grads, strict=True) if pair[1] is not None])
        self.sums.calls += 1

    def used(self, loss: Tensor | None, logits: Tensor, mask: Any, likelihood: str) -> Tensor:
        """Which targets count, those in ``mask`` or those that ``loss`` depends on; their number is kept."""
        if loss is None:
            used = used_targets(logits, mask, likelihood)
        else:
            with self.pause():
                used = used_by(loss, logits, likelihood)
        self.sums.counted += self.count(logits, used)
        return used


def full_precision(*devices: str) -> AbstractContextManager[Any]:
    """No autocast inside; entering that takes longer than asking whether there is one."""
    if not any(map(torch.is_autocast_enabled, devices)):
        return nullcontext()
    stack = ExitStack()
    for device in devices:
        stack.enter_context(torch.autocast(device, enabled=False))
    return stack


def logits_in(output: Any) -> Tensor | None:
    """The model's output among what it returned: ``.logits``, or the first tensor that is not a scalar."""
    if isinstance(output, Tensor):
        return output if output.dim() else None
    named = getattr(output, "logits", None)
    if isinstance(named, Tensor):
        return named
    parts = output.values() if isinstance(output, dict) else output if isinstance(output, tuple | list) else ()
    return next((found for found in map(logits_in, parts) if found is not None), None)
