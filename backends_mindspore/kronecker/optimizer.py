"""The optimizer around the Kronecker preconditioner, as MindSpore and its users see it, and its part of the graph.

Factors and inverses are worked out on the host (:mod:`.refresh`) and written before the graph takes the step: natural
gradients, trust region, momentum. It takes it only if gradients and directions are finite.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from hessiod.backends.kronecker.plan import Plan
from hessiod.backends_mindspore import namespace as xp
from hessiod.backends_mindspore.adapter import RuleOptimizer
from hessiod.backends_mindspore.holder import name_apart, put
from hessiod.backends_mindspore.kronecker import blocks
from hessiod.backends_mindspore.kronecker.cluster import check_placement
from hessiod.backends_mindspore.kronecker.covering import covered_layers
from hessiod.backends_mindspore.kronecker.groups import check, check_net, grouped, split
from hessiod.backends_mindspore.kronecker.layers import Embedding, Layer, Norm
from hessiod.backends_mindspore.kronecker.plan import make_plan
from hessiod.backends_mindspore.kronecker.states import State
from hessiod.backends_mindspore.kronecker.step import KroneckerStep
from hessiod.backends_mindspore.traced import each, entries, times, wholly_finite
from hessiod.core.errors import InvalidState, NonFinite
from hessiod.core.kronecker import trust_region
from hessiod.core.rule import Rule
from hessiod.core.rules import RULES
from hessiod.core.sgd import sgd_rule

LOG = logging.getLogger("hessiod")


def slope(direction, gradient, lr):
    """A layer's part of the trust region's quadratic form."""
    product = trust_region.inner_product(xp, direction, ops.cast(gradient, direction.dtype))
    return ops.cast(product, ms.float64) * lr * lr


class KroneckerOptimizer(RuleOptimizer):
    """What K-FAC, SP-NGD and THOR share; each is a policy and a signature.

    ``parameters`` are those of covered layers, ``fallback`` is the optimizer of the others, ``trained`` are all.
    """

    policy: Any
    counters: ClassVar[Mapping[str, int]]
    keeps_earlier = False
    adapt_every: int | None = None
    """Steps between two adaptations of the damping; None for none."""

    def __init__(
        self,
        net: nn.Cell,
        learning_rate: Any,
        settings: Mapping[str, Any],
        *,
        skip: Sequence[str],
        params: Any,
        placement: str,
        weight_decay: Any,
        loss_scale: float,
        nonfinite: str,
    ) -> None:
        check_net(net)
        check(settings, skip)
        check_placement(placement)
        groups = grouped(net, params, learning_rate, weight_decay)
        found = covered_layers(type(self).__name__, net, groups, skip)
        own, others = split(groups, found.layers)
        rule, values = self.covered_rule(settings)
        super().__init__(rule, own, learning_rate, values, weight_decay, loss_scale, nonfinite)
        self.settings, self.placement = dict(settings), placement
        self.layers, self.reasons = tuple(found.layers), found.reasons
        self.kl_clip = None if settings["kl_clip"] is None else Tensor(settings["kl_clip"], ms.float64)
        self.damping_now = Parameter(Tensor(settings["damping"], ms.float64), name="damping", requires_grad=False)
        self.usable = Parameter(Tensor(np.ones(len(self.parameters), bool)), name="usable", requires_grad=False)
        self.falls_back = bool(others)
        if others:
            self.fallback = self._fallback(others, settings, loss_scale)
        rest = list(self.fallback.parameters) if others else []
        self.trained, self.own_count = ParameterTuple([*self.parameters, *rest]), len(self.parameters)
        self._bind_layers()
        LOG.info("%s\n%s", type(self).__name__, self.plan())

    def covered_rule(self, settings: Mapping[str, Any]) -> tuple[Rule, dict[str, float]]:
        """Momentum on natural gradients, and its hyperparameters."""
        rule = sgd_rule(settings)
        names = [name for name in ("momentum", "dampening") if name in rule.hyperparameters]
        return rule, {name: settings[name] for name in names}

    def _fallback(self, groups: list[dict[str, Any]], settings: Mapping[str, Any], loss_scale: float) -> RuleOptimizer:
        rule = RULES["adamw"] if settings["fallback"] == "adamw" else sgd_rule(settings)
        values = {name: settings[name] for name in rule.hyperparameters if name not in ("lr", "weight_decay")}
        made = RuleOptimizer(
            rule, groups, settings["fallback_lr"], values, settings["weight_decay"], loss_scale, "skip"
        )
        users = set(map(id, made.parameters))
        for param in made.get_parameters():
            if id(param) not in users:
                param.name = f"fallback.{param.name}"
        return made

    def _bind_layers(self) -> None:
        """States and blocks of the layers, and the place of each parameter's direction among the blocks' results."""
        block = self.settings["block_size"]
        self.states = {
            layer: State(layer, block, self.layer_counters(layer), self.keeps_earlier) for layer in self.layers
        }
        self.state = ParameterTuple([param for state in self.states.values() for param in state.parameters()])
        places = {id(param): place for place, param in enumerate(self.parameters)}
        self.layer_places = tuple(tuple(places[id(param)] for param in layer.params) for layer in self.layers)
        order = [place for layer in self.layer_places for place in layer]
        self.direction_places = tuple(order.index(place) for place in range(len(self.parameters)))
        self.blocks = nn.CellList([self._block(layer) for layer in self.layers], auto_prefix=False)
        ours = [param for param in self.get_parameters() if id(param) not in set(map(id, self.trained))]
        name_apart(ours, self.trained)

    def layer_counters(self, layer: Layer) -> Mapping[str, int]:
        """The policy's counters of a layer."""
        return self.counters

    def _block(self, layer: Layer) -> nn.Cell:
        state = self.states[layer]
        if isinstance(layer, Norm):
            return blocks.NormBlock(layer, state.arrays["factor_f"], self.damping_now)
        kind = blocks.EmbeddingBlock if isinstance(layer, Embedding) else blocks.MatrixBlock
        return kind(layer, state.inverses["inverse_a"], state.inverses["inverse_g"])

    # In the graph

    def natural(self, gradients):
        """Natural gradients by parameter, within the trust region."""
        parts: Any = ()
        for block, places in zip(self.blocks, self.layer_places):  # noqa: B905 - strict= cannot be traced
            parts = parts + block(entries(gradients, places))
        directions: Any = entries(parts, self.direction_places)
        if self.kl_clip is None:
            return directions
        rates: Any = ()
        for group in range(self.group_count):
            rates = (*rates, self.rates(group)[0])
        slopes = tuple(map(slope, directions, gradients, entries(rates, self.group_of)))
        return each(times, directions, trust_region.kl_scale(xp, ops.stack(slopes).sum(), clip=self.kl_clip))

    def unscaled_all(self, gradients, factor):
        """Gradients of ``trained`` times a factor, in the dtype of the parameters' arithmetic."""
        found = self.unscaled(gradients[: self.own_count], factor)
        if self.falls_back:
            found = found + self.fallback.unscaled(gradients[self.own_count :], factor)
        return found

    def all_found_finite(self, gradients):
        """Whether gradients of ``trained`` are finite; what is not is marked."""
        good = self.all_finite(gradients[: self.own_count], ())
        if self.falls_back:
            good = ops.logical_and(good, self.fallback.all_finite(gradients[self.own_count :], ()))
        return good

    def bounded_step(self, gradients, good):
        """Take the step if ``good`` and directions are finite; else count a refusal."""
        own, others = gradients[: self.own_count], gradients[self.own_count :]
        directions = self.natural(own)
        usable = ops.stack(each(wholly_finite, directions))
        ops.assign(self.usable, usable)
        good = ops.logical_and(good, usable.all())
        if good:
            self.take_step(directions)
            self.moved()
            if self.falls_back:
                self.fallback.take_step(others)
        else:
            self.refuse()
        return good

    def moved(self):
        """What a method does after the parameters moved."""
        return True

    # On the host

    def __call__(self, gradients: Any) -> Any:
        """Refused: without a forward pass there are no statistics."""
        raise InvalidState(
            f"{type(self).__name__} needs statistics of the layers: train with hessiod.mindspore.TrainStep(net, "
            "loss_fn, opt)"
        )

    def construct(self, gradients):
        """Refused in a graph too, which can raise only Python's own exceptions."""
        raise RuntimeError("this optimizer needs statistics: train with hessiod.mindspore.TrainStep(net, loss_fn, opt)")

    def step_with(self, net: nn.Cell, loss_fn: Any, **settings: Any) -> KroneckerStep:
        """The training step that :class:`~hessiod.mindspore.TrainStep` runs."""
        return KroneckerStep(net, loss_fn, self, **settings)

    def plan(self) -> Plan:
        """What each trained parameter gets: a table of name, shape, treatment and detail."""
        block, fallback = self.settings["block_size"], self.settings["fallback"]
        return make_plan(self.trained, self.layers, self.reasons, type(self).__name__, fallback, block)

    @property
    def members(self) -> tuple[RuleOptimizer, ...]:
        """Itself, for the covered layers, and the optimizer of the other parameters if there are any."""
        return (self, self.fallback) if self.falls_back else (self,)

    @property
    def damping(self) -> float:
        """The damping; set it to change it for all layers from the next inverses on."""
        return float(self.damping_now.asnumpy())

    @damping.setter
    def damping(self, value: float) -> None:
        check({**self.settings, "damping": value}, ())
        put(self.damping_now, np.array(value, np.float64))

    @property
    def curvature_due(self) -> bool:
        """Whether the coming step wants statistics of at least one layer."""
        return any(map(self._wanted, self.layers))

    def wanted(self) -> dict[Layer, tuple[str, ...]]:
        """Which statistics of which layers the coming step wants."""
        found = {layer: self._wanted(layer) for layer in self.layers}
        return {layer: names for layer, names in found.items() if names}

    def _wanted(self, layer: Layer) -> tuple[str, ...]:
        return self.policy.wanted(layer, self.states[layer].numbers(), self.steps + 1, self.settings)

    def prepare(self) -> None:
        """What a method does before a step: its schedule of damping."""

    def raise_if_refused(self) -> None:
        """Raise :class:`NonFinite` if the last step was refused and the optimizer was told to raise."""
        if self.nonfinite == "skip":
            return
        super().raise_if_refused()
        if self.falls_back:
            bad = [
                p.name for p, ok in zip(self.fallback.parameters, self.fallback.finite.asnumpy(), strict=True) if not ok
            ]
            if bad:
                raise NonFinite(f"the gradient of parameter {bad[0]!r} holds NaN or infinity; nothing was changed")
        bad = [p.name for p, fine in zip(self.parameters, self.usable.asnumpy(), strict=True) if not fine]
        if bad:
            raise NonFinite(f"the natural gradient of {bad[0]!r} is not finite; nothing was changed. Raise damping")
