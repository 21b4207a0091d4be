"""Diagnostics as numbers: to a function of a dictionary, and to TensorBoard's own files."""

import pytest
import torch
from torch.nn import functional as F

from hessiod.core import InvalidArgument
from hessiod.torch import (
    KFAC,
    SPNGD,
    THOR,
    AdamW,
    CurvatureHook,
    DiagonalNewton,
    Sophia,
    SophiaG,
    TensorBoard,
    log_diagnostics,
    scalars,
)


def trained(make, steps, log=None, every=2):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    opt = make(model)
    handle = log_diagnostics(opt, log, every) if log else None
    x, y = torch.randn(32, 5), torch.randint(3, (32,))
    with CurvatureHook(model, opt):
        for _ in range(steps):
            F.cross_entropy(model(x), y).backward()
            opt.step()
            opt.zero_grad()
    if handle:
        handle.remove()
    return opt


def test_sophia_to_a_function():
    seen = []
    opt = trained(lambda model: SophiaG(model.parameters(), every=3), 5, seen.append)
    assert [entry["hessiod/step"] for entry in seen] == [2, 4]
    assert [entry["hessiod/refreshes"] for entry in seen] == [1, 2]
    assert all(isinstance(value, int | float) for entry in seen for value in entry.values())
    last = scalars(opt)
    (said,) = opt.diagnostics()
    assert last["hessiod/clip_fraction"] == said["clip_fraction"] == opt.clip_fraction()
    assert last["hessiod/curvature/95%"] == said["curvature"]["95%"]
    assert last["hessiod/interval"] == 3


def test_an_entry_a_step_though_the_base_class_has_instances_too():
    seen = []
    trained(lambda model: Sophia(model.parameters(), every=3), 1)
    trained(lambda model: SophiaG(model.parameters(), every=3), 2, seen.append, every=1)
    assert [entry["hessiod/step"] for entry in seen] == [1, 2]


def test_groups_have_numbers():
    def make(model):
        return SophiaG([{"params": model[0].parameters()}, {"params": model[2].parameters(), "rho": 1e6}])

    found = scalars(trained(make, 1))
    assert found["hessiod/0/clip_fraction"] > found["hessiod/1/clip_fraction"] == 0.0


@pytest.mark.parametrize(
    ("make", "shortest", "longest"),
    [
        (lambda model: KFAC(model, damping=0.03, factor_every=4), 4, 4),
        (
            lambda model: SPNGD(model, damping=0.03, lr=0.0, fallback_lr=0.0, alpha=1e6),
            13,
            13,
        ),  # nothing seems to change
        (lambda model: THOR(model, damping=0.03, factor_every=2), 2, 2),
    ],
    ids=["kfac", "spngd", "thor"],
)
def test_kronecker_methods_say_their_damping_and_intervals(make, shortest, longest):
    found = scalars(trained(make, 21))
    assert found["hessiod/damping"] == 0.03
    assert found["hessiod/interval/min"] == shortest
    assert found["hessiod/interval/max"] == longest
    assert shortest <= found["hessiod/interval/mean"] <= longest


def test_damped_newton_and_a_rule_without_curvature():
    opt = DiagonalNewton([torch.nn.Parameter(torch.ones(2))], damping=0.25)
    assert scalars(opt)["hessiod/damping"] == 0.25
    assert scalars(trained(lambda model: AdamW(model.parameters()), 1)) == {"hessiod/step": 1}


def test_tensorboard_files(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path) as writer:
        opt = trained(lambda model: SophiaG(model.parameters(), every=3), 4, TensorBoard(writer))
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    expected = scalars(opt)
    assert set(events.Tags()["scalars"]) == set(expected) - {"hessiod/step"}
    points = events.Scalars("hessiod/curvature/50%")
    assert [point.step for point in points] == [2, 4]
    assert points[-1].value == pytest.approx(expected["hessiod/curvature/50%"], rel=1e-6)


@pytest.mark.parametrize("every", [0, 1.5])
def test_an_interval_that_is_none(every):
    with pytest.raises(InvalidArgument, match=r"every: found .*, expected a whole number >= 1"):
        log_diagnostics(AdamW([torch.nn.Parameter(torch.ones(1))]), print, every)
