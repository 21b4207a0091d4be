"""The optimizer around the Kronecker preconditioner: statistics, inverses, trust region, then a momentum step.

Factors and inverses are worked out on the host and written before the graph takes the step; the graph takes it only if
gradients and directions are finite. If it does not, they are put back: a refused step changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from hessiod.backends.kronecker.plan import Plan, Row, describe
from hessiod.backends.kronecker.settings import check_settings
from hessiod.backends_mindspore import namespace as xp
from hessiod.backends_mindspore.adapter import RuleOptimizer
from hessiod.backends_mindspore.groups import groups_of
from hessiod.backends_mindspore.holder import name_apart, put
from hessiod.backends_mindspore.kronecker import blocks
from hessiod.backends_mindspore.kronecker.cluster import Cluster, Pair, check_placement
from hessiod.backends_mindspore.kronecker.discover import discover
from hessiod.backends_mindspore.kronecker.layers import Embedding, Layer, Norm
from hessiod.backends_mindspore.kronecker.states import State
from hessiod.backends_mindspore.kronecker.step import KroneckerStep
from hessiod.backends_mindspore.kronecker.sums import Statistics
from hessiod.backends_mindspore.schedule import check_rate
from hessiod.backends_mindspore.traced import each, entries, times, wholly_finite
from hessiod.core.errors import InvalidArgument, InvalidState, NonFinite
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
        if not isinstance(net, nn.Cell):
            raise InvalidArgument(
                f"net: found {type(net).__name__}, expected a mindspore.nn.Cell: these methods need its layers; pass "
                "net, not net.trainable_params()"
            )
        check(settings, skip)
        check_placement(placement)
        params = list(net.trainable_params() if params is None else params)
        groups = groups_of(params, learning_rate, weight_decay) if params else []
        wanted = {id(param): param for group in groups for param in group["params"]}
        check_owned(net, wanted)
        found = discover(net, wanted, tuple(skip))
        if not found.layers:
            reasons = ", ".join(sorted(set(found.reasons.values()))) or "it has no trained parameters"
            raise InvalidArgument(
                f"net: found {type(net).__name__} with no layer that {type(self).__name__} covers ({reasons}), "
                "expected at least one Dense, Conv, Embedding or normalisation layer; use AdamW"
            )
        covered = {id(param) for layer in found.layers for param in layer.params}
        own, others = split(groups, covered)
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
        covered = {id(param): layer for layer in self.layers for param in layer.params}
        block, fallback = self.settings["block_size"], self.settings["fallback"]
        rows = []
        for param in self.trained:
            layer = covered.get(id(param))
            treatment, detail = (
                (fallback, self.reasons[param.name]) if layer is None else (type(self).__name__, describe(layer, block))
            )
            rows.append(Row(param.name, tuple(param.shape), treatment, detail))
        return Plan(rows)

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

    @contextmanager
    def refreshed(self, statistics: Statistics, scale: float, cluster: Cluster) -> Iterator[bool]:
        """With new factors and inverses in place; as it was if the step is refused. False if they are not finite.

        ``scale`` is what the loss was multiplied by.
        """
        before: list[tuple[Parameter, Any]] = []
        damping, refused = self.damping, int(self.refused.asnumpy())
        good = self._finite(statistics, scale)
        try:
            if good:
                self.prepare()
                for layer, new in self._fresh(statistics, cluster).items():
                    before += self.states[layer].write(new)
            yield good
        except BaseException:
            self._put_back(before, damping)
            raise
        if int(self.refused.asnumpy()) != refused:
            self._put_back(before, damping)

    def _put_back(self, before: list[tuple[Parameter, Any]], damping: float) -> None:
        for param, array in reversed(before):
            put(param, array)
        put(self.damping_now, np.array(damping, np.float64))

    def prepare(self) -> None:
        """What a method does before a step: its schedule of damping."""

    def _fresh(self, statistics: Statistics, cluster: Cluster) -> Statistics:
        """New entries of the layers' states, from statistics and from inverses that are due."""
        group = {**self.settings, "damping": self.damping}
        settings = blocks.Settings(group["damping"], group["inverse"], group["block_size"])
        fresh: Statistics = {}
        due: dict[Layer, Pair] = {}
        for layer, state in self.states.items():
            held = state.read()
            new, invert = self.policy.fold(layer, held, statistics.get(layer, {}), self.steps + 1, group)
            a, g = (new.get(name, held.get(name)) for name in ("factor_a", "factor_g"))
            if invert and a is not None and g is not None:
                due[layer] = a, g
            if new:
                fresh[layer] = new
        found = cluster.inverses(due, lambda layer, a, g: blocks.inverted(layer, a, g, settings))
        for layer, inverses in found.items():
            fresh[layer] = fresh.get(layer, {}) | inverses
        return fresh

    def _finite(self, statistics: Statistics, scale: float) -> bool:
        """Whether statistics are; raise if they are not and that was asked for."""
        for layer, parts in statistics.items():
            if not all(np.isfinite(part).all() for part in parts.values()):
                if self.nonfinite == "raise" and scale <= 1:
                    raise NonFinite(
                        f"layer {layer.name}: the curvature estimate holds NaN or infinity, from its inputs or from "
                        "the gradients of its outputs; nothing was changed. Look for NaN in the batch, lower "
                        "learning_rate, or construct the optimizer with nonfinite='skip' to pass over such steps"
                    )
                return False
        return True

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


def check_owned(net: nn.Cell, wanted: Mapping[int, Parameter]) -> None:
    """Raise for a parameter that is not one of the net's."""
    known = {id(param) for param in net.get_parameters()}
    for key, param in wanted.items():
        if key not in known:
            raise InvalidArgument(f"params: parameter {param.name!r} is not one of the net's")


def check(settings: Mapping[str, Any], skip: Sequence[str]) -> None:
    """Raise :class:`InvalidArgument` for the first setting that is not what it may be."""
    check_settings({name: value for name, value in settings.items() if name != "fallback_lr"}, skip)
    check_rate(RULES["adamw"], settings["fallback_lr"], "fallback_lr")


def split(groups: list[dict[str, Any]], covered: set[int]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The groups' covered parameters, and the others with the fallback's learning rate."""
    own, others = [], []
    for group in groups:
        inside = [param for param in group["params"] if id(param) in covered]
        outside = [param for param in group["params"] if id(param) not in covered]
        if inside:
            own.append({"params": inside, "lr": group["lr"], "weight_decay": group["weight_decay"]})
        if outside:
            others.append({"params": outside, "weight_decay": group["weight_decay"]})
    return own, others
