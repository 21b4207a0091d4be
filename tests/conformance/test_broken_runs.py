"""Training loops that are broken on purpose: level 4 on the digits must notice each, by the row of its optimizer."""

import pytest

from hessiod.backends import generic, load
from hessiod.backends.generic.optimizer import OPTIMIZERS, GenericOptimizer
from hessiod.conformance import suite, trajectories
from hessiod.conformance.case import FAIL, PASS
from hessiod.conformance.problems import DIGITS
from hessiod.conformance.selection import NONE_KNOWN


class Generic:
    """Torch's arrays and derivatives under the generic trainer, with an optimizer of ours."""

    name = "generic"
    optimizers = OPTIMIZERS

    def __init__(self, optimizer):
        torch = load("torch")
        self.namespace, self.routes, self.autodiff = torch.namespace, torch.routes, torch.autodiff
        self.from_numpy, self.to_numpy, self.devices = torch.from_numpy, torch.to_numpy, torch.devices
        self.optimizer = optimizer

    def trainer(self, config, weights):
        trainer = generic.GenericTrainer(self, config, weights)
        trainer.optimizer.__class__ = self.optimizer
        return trainer


def row(optimizer, name):
    (found,) = suite.run_checks(list(trajectories.checks_of_run([Generic(optimizer)], DIGITS, name)), NONE_KNOWN)
    assert found.id == f"L4/digits.{name}/generic/golden/50"
    return found


@pytest.mark.parametrize("name", [name for name in DIGITS.settings if DIGITS.config(name).kind in OPTIMIZERS])
def test_the_generic_loop_follows_the_golden_losses(name):
    assert row(GenericOptimizer, name).verdict == PASS


class StaleHessian(GenericOptimizer):
    """Folds in the estimate before the last one."""

    def step(self, grads, estimates, lr):
        before = vars(self).get("before", estimates)
        if estimates is not None:
            self.before = estimates
        super().step(grads, before if estimates is not None else None, lr)


class RefreshOneLate(GenericOptimizer):
    """Curvature at steps 1, 12, 22, ..."""

    @property
    def curvature_due(self):
        return self.steps == 0 or (self.steps > 1 and self.steps % self.values["every"] == 1)


class ProbeReused(GenericOptimizer):
    """The same probe at every step."""

    def probed(self, loss, data):
        steps, self.steps = self.steps, 0
        found = super().probed(loss, data)
        self.steps = steps
        return found


class TargetsReused(GenericOptimizer):
    """The same random numbers for every draw of targets."""

    def sampled(self, forward, pulled, inputs):
        steps, self.steps = self.steps, 0
        found = super().sampled(forward, pulled, inputs)
        self.steps = steps
        return found


class HalfState(GenericOptimizer):
    """State that went through half precision."""

    def step(self, grads, estimates, lr):
        super().step(grads, estimates, lr)
        self.state = [{slot: array.half().float() for slot, array in slots.items()} for slots in self.state]


class Changed(GenericOptimizer):
    """Runs kernels with other hyperparameters."""

    def run(self, kernel, given, into, values):
        super().run(kernel, given, into, values | self.change(values))


class SwappedBetas(Changed):
    def change(self, values):
        return {"beta1": values["beta2"], "beta2": values["beta1"]}


class NoBiasCorrection(Changed):
    def change(self, values):
        return {"step": 10_000}


class RefreshesNotCounted(Changed):
    def change(self, values):
        return {"refreshes": 1}


class NoDecay(Changed):
    def change(self, values):
        return {"weight_decay": 0.0}


class Climbs(GenericOptimizer):
    def step(self, grads, estimates, lr):
        super().step([-grad for grad in grads], estimates, lr)


class RateOneLate(GenericOptimizer):
    def step(self, grads, estimates, lr):
        late, self.late = vars(self).get("late", lr), lr
        super().step(grads, estimates, late)


class SquaredTwice(GenericOptimizer):
    """Estimates of the wrong size."""

    def step(self, grads, estimates, lr):
        super().step(grads, None if estimates is None else [estimate**2 for estimate in estimates], lr)


@pytest.mark.parametrize(
    ("broken", "name"),
    [
        (StaleHessian, "sophia-g"),
        (StaleHessian, "adahessian"),
        (RefreshOneLate, "sophia-g"),
        (RefreshOneLate, "sophia-h"),
        (ProbeReused, "sophia-h"),
        (ProbeReused, "adahessian"),
        (TargetsReused, "sophia-g"),
        (HalfState, "adamw"),
        (HalfState, "apollo"),
        (SwappedBetas, "sophia-g"),
        (SwappedBetas, "adamw"),
        (NoBiasCorrection, "adamw"),
        (NoBiasCorrection, "apollo"),
        (RefreshesNotCounted, "adahessian"),
        (NoDecay, "apollow"),
        (Climbs, "sgd"),
        (Climbs, "nesterov"),
        (RateOneLate, "momentum"),
        (SquaredTwice, "diagonal-newton"),
    ],
)
def test_a_broken_loop_is_caught_by_its_optimizers_row(broken, name):
    assert row(broken, name).verdict == FAIL
