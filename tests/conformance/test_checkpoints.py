"""Level 5 catches backends that lose state on purpose."""

import numpy as np
import pytest
import torch

from hessiod.backends import load
from hessiod.backends_torch.backend import TorchBackend
from hessiod.conformance.case import FAIL, PASS, UNSUPPORTED
from hessiod.conformance.check import perform
from hessiod.conformance.checkpoints import checkpoint_checks
from hessiod.conformance.trajectories import trajectory_checks


class Losing(TorchBackend):
    """Torch, with a load that does something wrong afterwards."""

    name = "losing"

    def __init__(self, damage, optimizer="sophia-g"):
        super().__init__()
        self.damage, self.optimizers = damage, {optimizer: TorchBackend.optimizers[optimizer]}

    def trainer(self, **arguments):
        trainer = super().trainer(**arguments)
        right = trainer.load

        def load_wrongly(path):
            right(path)
            self.damage(trainer)

        trainer.load = load_wrongly
        return trainer


def slots_zeroed(trainer):
    for state in trainer.optimizer.state.values():
        state["exp_avg"].zero_()


def weights_in_half(trainer):
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.copy_(parameter.half().float())


def step_forgotten(trainer):
    """The counter of probes and of sampled targets."""
    for group in trainer.optimizer.param_groups:
        group["step"] -= 1


def nothing(trainer):
    pass


def run(backends, optimizer):
    known, rows, subject = {}, {}, f"L5/digits.{optimizer}/"
    for check in checkpoint_checks(backends):
        if check.id.startswith(subject):
            outcome = perform(check, known)
            if outcome.data is not None:
                known[check.id] = outcome.data
            rows |= {case.id.removeprefix(subject): case.verdict for case in outcome.cases}
    return rows


@pytest.mark.parametrize(
    ("damage", "optimizer", "failing"),
    [
        (nothing, "sophia-g", set()),
        (
            slots_zeroed,
            "sophia-g",
            {"losing/resumed", "torch-losing/arrays", "torch-losing/all-torch", "torch-losing/all-losing"},
        ),
        (weights_in_half, "sophia-g", {"losing/resumed", "torch-losing/arrays"}),
        (step_forgotten, "sophia-g", {"losing/resumed"}),
        (step_forgotten, "sophia-h", {"losing/resumed"}),
    ],
)
def test_a_backend_that_loses_state_is_caught(damage, optimizer, failing):
    rows = run([load("torch"), Losing(damage, optimizer)], optimizer)
    assert len(rows) == 8
    assert failing <= {name for name, verdict in rows.items() if verdict == FAIL}
    assert all(rows[name] == PASS for name in rows if name.startswith("torch/"))
    if damage is nothing:
        assert set(rows.values()) == {PASS}


class Keeping(Losing):
    """Torch, with a load that leaves the momentum as it was, if there is some already."""

    name = "keeping"

    def __init__(self):
        super().__init__(nothing)
        self.begun = 0

    def trainer(self, **arguments):
        self.begun += 1
        trainer = TorchBackend.trainer(self, **arguments)
        right, state = trainer.load, trainer.optimizer.state

        def load_over(path):
            kept = {parameter: slots["exp_avg"].clone() for parameter, slots in state.items()}
            right(path)
            for parameter, momentum in kept.items():
                state[parameter]["exp_avg"].copy_(momentum)

        trainer.load = load_over
        return trainer


def test_a_moved_run_goes_on_in_the_trainer_that_resumed_its_own():
    """Which costs no more compiling, and catches what a load into a new trainer does not show."""
    keeping = Keeping()
    rows = run([load("torch"), keeping], "sophia-g")
    assert keeping.begun == 2
    assert rows["keeping/resumed"] == PASS
    assert rows["torch-keeping/arrays"] == FAIL


def test_a_backend_without_optimizers_is_unsupported_and_pairs_go_both_ways():
    checks = list(checkpoint_checks([load("numpy"), load("torch"), Losing(nothing)]))
    assert {check.backend for check in checks if check.unsupported} >= {"numpy"}
    assert perform(checks[0], {}).cases[0].verdict == UNSUPPORTED
    ids = {check.id for check in checks}
    assert {"L5/digits.sophia-g/torch-losing", "L5/digits.sophia-g/losing-torch"} <= ids
    assert "L5/digits.adamw/torch-losing" not in ids
    assert len(ids) == len(checks)


def test_the_cut_lies_between_two_refreshes_and_both_sides_have_one():
    from hessiod.conformance.checkpoints import CUT, END

    due = np.arange(0, END, 10)
    assert (due < CUT).any()
    assert (due >= CUT).any()


class Counting(TorchBackend):
    """Torch, with a count of the runs that were begun."""

    begun = 0

    def trainer(self, **arguments):
        self.begun += 1
        return super().trainer(**arguments)


def test_level_5_goes_on_with_level_4s_run_and_finds_what_it_finds_with_its_own():
    backend = Counting()
    chosen = [*trajectory_checks([backend]), *checkpoint_checks([backend])]
    checks = {check.level: check for check in chosen if check.id[2:] == "/digits.adamw/torch"}
    alone = perform(checks["L5"], {})
    assert backend.begun == 2
    assert perform(checks["L4"], {}).cases[0].verdict == PASS
    assert perform(checks["L5"], {}) == alone
    assert backend.begun == 4  # level 4's run, and the one that takes its file up
    assert perform(checks["L5"], {}) == alone
    assert backend.begun == 6  # nobody gets a run that another check has had
