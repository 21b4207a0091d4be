"""A rule with its state, stepped through a backend's first route; curvature from the backend's autodiff."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hessiod.core import philox
from hessiod.core.adahessian import adahessian_rule, spatial_average
from hessiod.core.apollo import apollo_rule
from hessiod.core.curvature import gnb_kernel, gnb_scalars, hutchinson_kernel
from hessiod.core.diagonal_newton import diagonal_newton_rule
from hessiod.core.likelihood import categorical_residual
from hessiod.core.rule import Kernel, Rule
from hessiod.core.rules import RULES
from hessiod.core.sgd import sgd_rule


@dataclass(frozen=True)
class Recipe:
    """An optimizer: the rule that its settings mean, its defaults, and its estimator ("" for none)."""

    rule_of: Callable[[Mapping[str, Any]], Rule]
    defaults: Mapping[str, Any]
    estimator: str = ""


_SOPHIA = {"weight_decay": 0.1, "every": 10}
_SGD = {"momentum": 0.0, "dampening": 0.0, "nesterov": False}
OPTIMIZERS: Mapping[str, Recipe] = {
    "sophia-g": Recipe(lambda values: RULES["sophia"], _SOPHIA, "gnb"),
    "sophia-h": Recipe(lambda values: RULES["sophia"], _SOPHIA, "hutchinson"),
    "adahessian": Recipe(
        adahessian_rule, {"hessian_power": 1.0, "spatial_averaging": "none", "every": 1}, "hutchinson"
    ),
    "diagonal-newton": Recipe(diagonal_newton_rule, {"power": 1, "every": 1}, "hutchinson"),
    "apollo": Recipe(lambda values: apollo_rule("L2"), {}),
    "apollow": Recipe(lambda values: apollo_rule("decoupled"), {}),
    "adamw": Recipe(lambda values: RULES["adamw"], {}),
    "sgd": Recipe(sgd_rule, _SGD),
}


class GenericOptimizer:
    """Parameters as a list of native arrays, replaced at each step."""

    def __init__(self, backend: Any, recipe: Recipe, params: Sequence[Any], values: Mapping[str, Any]) -> None:
        self.backend, self.recipe, self.params = backend, recipe, list(params)
        given = {**recipe.defaults, **values}
        self.rule = recipe.rule_of(given)
        self.values = {**self.rule.defaults, **given}
        self.state = [dict.fromkeys(self.rule.slots, 0.0 * param) for param in self.params]
        self.steps = self.refreshes = 0

    @property
    def curvature_due(self) -> bool:
        """Whether the coming step wants a curvature estimate."""
        return bool(self.recipe.estimator) and self.steps % self.values["every"] == 0

    def step(self, grads: Sequence[Any], estimates: Sequence[Any] | None, lr: float) -> None:
        """One step, with estimates where they are due."""
        self.steps += 1
        self.refreshes += estimates is not None
        values = self.values | {"lr": lr, "step": self.steps, "refreshes": self.refreshes}
        for place, grad in enumerate(grads):
            arrays = {"param": self.params[place], "grad": grad, **self.state[place]}
            if estimates is not None and self.rule.refresh is not None:
                self.run(self.rule.refresh, arrays | {"estimate": estimates[place]}, arrays, values)
            self.run(self.rule.step, arrays, arrays, values)
            self.params[place] = arrays["param"]
            self.state[place] = {slot: arrays[slot] for slot in self.rule.slots}

    def run(self, kernel: Kernel, given: Mapping[str, Any], into: dict[str, Any], values: Mapping[str, Any]) -> None:
        """Run a kernel on the arrays that it names."""
        scalars = kernel.scalars_from(values)
        results = self.backend.routes[0].run(kernel.function, [given[name] for name in kernel.operands], scalars)
        into.update(zip(kernel.results, results, strict=True))

    def sampled(self, forward: Callable[..., Any], pulled: Callable[..., Any], inputs: Sequence[Any]) -> list[Any]:
        """Gauss-Newton-Bartlett; ``pulled`` is the product of the output and a last array of its shape."""
        xp = self.backend.namespace
        logits = forward(xp, self.params, inputs)
        residual = categorical_residual(xp, logits, self.values["seed"], self.steps + 1, 0)
        _, totals = self.backend.autodiff.value_and_gradients(pulled, self.params, [*inputs, residual])
        count = 1.0
        for length in logits.shape[:-1]:
            count *= length
        return [gnb_kernel(xp, total, **gnb_scalars(count=count)) for total in totals]

    def probed(self, loss: Callable[..., Any], data: Sequence[Any]) -> list[Any]:
        """Hutchinson's, with one Rademacher probe, spatially averaged."""
        xp = self.backend.namespace
        probes = philox.rademacher_probes(xp, self.params, seed=self.values["seed"], step=self.steps + 1)
        products = self.backend.autodiff.product(loss, self.params, data, probes)
        averaging = self.values.get("spatial_averaging", "none")
        pairs = zip(probes, products, strict=True)
        return [spatial_average(xp, hutchinson_kernel(xp, probe, product), averaging) for probe, product in pairs]
