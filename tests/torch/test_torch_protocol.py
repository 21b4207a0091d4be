"""The optimizers as torch.optim.Optimizers: resuming, copying, groups, schedules, maximize, closures, odd shapes."""

import copy
import io
import pickle

import pytest
import torch
from torch.nn import functional as F
from torch.optim import lr_scheduler

from hessiod.core import InvalidArgument, InvalidState
from hessiod.torch import SGD, AdaHessian, AdamW, Apollo, ApolloW, DiagonalNewton, Sophia, SophiaG, SophiaH

KINDS = {
    "sophia-g": lambda params, **more: SophiaG(params, lr=0.01, every=10, seed=3, **more),
    "sophia-h": lambda params, **more: SophiaH(params, lr=0.01, every=10, seed=3, **more),
    "sophia-warm": lambda params, **more: Sophia(params, lr=0.01, every=10, seed=3, **{**WARM, **more}),
    "adahessian": lambda params, **more: AdaHessian(
        params, lr=0.05, hessian_power=0.5, spatial_averaging=3, every=4, seed=3, **more
    ),
    "apollo": lambda params, **more: Apollo(params, lr=0.2, sigma=0.2, warmup=45, weight_decay=1e-3, **more),
    "apollo-w": lambda params, **more: ApolloW(params, lr=0.2, sigma=0.2, warmup=45, weight_decay=1e-3, **more),
    "diagonal-newton": lambda params, **more: DiagonalNewton(
        params, lr=0.02, damping=0.1, num_vectors=2, every=4, seed=3, probe="normal", **more
    ),
    "adamw": lambda params, **more: AdamW(params, lr=0.01, **more),
    "sgd": lambda params, **more: SGD(params, lr=0.1, momentum=0.9, **more),
}
WARM = dict(estimator="hutchinson", warm_start=True, samples=2)
each_kind = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
each_sophia = pytest.mark.parametrize("make", [KINDS["sophia-g"], KINDS["sophia-h"]], ids=["sophia-g", "sophia-h"])
PROBING = ["sophia-g", "sophia-h", "sophia-warm", "adahessian", "diagonal-newton"]
each_with_draws = pytest.mark.parametrize("make", [KINDS[name] for name in PROBING], ids=PROBING)


class Run:
    """A small classifier, its optimizer and a schedule; the batch is a function of the step."""

    def __init__(self, make, **settings):
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3))
        self.opt = make(self.model.parameters(), **settings)
        self.schedule = lr_scheduler.LambdaLR(self.opt, lambda step: 1 / (1 + 0.02 * step))

    def go(self, steps, sign=1.0):
        for _ in range(steps):
            generator = torch.Generator().manual_seed(self.schedule.last_epoch)
            x = torch.randn(16, 5, generator=generator)
            logits = self.model(x)
            loss = sign * F.cross_entropy(logits, torch.randint(3, (16,), generator=generator))
            if getattr(self.opt, "curvature_due", False):
                self.opt.update_curvature(loss=loss, logits=logits)
            loss.backward()
            self.opt.step()
            self.opt.zero_grad()
            self.schedule.step()
        return self

    def adopt(self, model, opt, steps):
        """Go on with a copy that was made after so many steps."""
        rate = opt.param_groups[0]["lr"]
        self.model, self.opt, self.schedule = model, opt, lr_scheduler.LambdaLR(opt, self.schedule.lr_lambdas[0])
        self.schedule.last_epoch = steps
        opt.param_groups[0]["lr"] = rate
        return self

    def everything(self):
        """Every weight and slot, and what each group holds besides parameters."""
        params = list(self.model.parameters())
        slots = [value for p in params for _, value in sorted(self.opt.state[p].items())]
        settings = [{k: v for k, v in group.items() if k != "params"} for group in self.opt.param_groups]
        return params + [torch.as_tensor(slot) for slot in slots], settings


def assert_identical(run, other):
    tensors, settings = run.everything()
    others, other_settings = other.everything()
    assert settings == other_settings
    assert len(tensors) == len(others)
    for a, b in zip(tensors, others, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


def snapshot(opt):
    """A deep copy of parameters, slots and settings, to show that nothing changed."""
    params = [param.detach().clone() for group in opt.param_groups for param in group["params"]]
    return params, copy.deepcopy(opt.state_dict())


def assert_unchanged(opt, before):
    params, state = before
    after_params, after = snapshot(opt)
    assert all(torch.equal(a, b) for a, b in zip(params, after_params, strict=True))
    assert state["param_groups"] == after["param_groups"]
    assert state["state"].keys() == after["state"].keys()
    for number, slots in state["state"].items():
        assert slots.keys() == after["state"][number].keys()
        for name, value in slots.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(after["state"][number][name]))


# Resuming and copying


@each_kind
def test_a_run_saved_at_37_of_90_steps_resumes_bit_for_bit(make):
    whole = Run(make).go(90)
    first, file = Run(make).go(37), io.BytesIO()
    torch.save([first.model.state_dict(), first.opt.state_dict(), first.schedule.state_dict()], file)
    file.seek(0)
    chosen = {"estimator": "hutchinson"} if type(first.opt) is Sophia else {}
    resumed = Run(type(first.opt), **chosen)  # with the defaults: the state brings every other setting
    for part, state in zip((resumed.model, resumed.opt, resumed.schedule), torch.load(file), strict=True):
        part.load_state_dict(state)
    assert_identical(resumed, first)
    assert_identical(resumed.go(53), whole)


@each_with_draws
def test_the_seed_and_the_step_decide_the_curvature(make):
    run = Run(make).go(37)
    for change in (dict(seed=4), dict(step=36)):
        other = Run(make).go(37)
        other.opt.param_groups[0].update(change)
        with pytest.raises(AssertionError):
            assert_identical(copy.deepcopy(run).go(10), other.go(10))


@each_kind
def test_a_deep_copy_goes_on_alone_and_alike(make):
    run = Run(make).go(37)
    other = Run(make).adopt(*copy.deepcopy((run.model, run.opt)), steps=37)
    assert_identical(other.go(20), Run(make).go(57))
    assert_identical(run, Run(make).go(37))


@each_kind
def test_a_pickled_optimizer_goes_on_alike(make):
    run = Run(make).go(37)
    other = Run(make).adopt(*pickle.loads(pickle.dumps((run.model, run.opt))), steps=37)
    assert_identical(other.go(20), Run(make).go(57))


@each_kind
def test_a_state_loads_whether_or_not_a_scheduler_was_attached_when_it_was_saved(make):
    params = [torch.nn.Parameter(torch.ones(2))]
    state = make(params).state_dict()
    scheduled = make(params)
    lr_scheduler.LambdaLR(scheduled, lambda step: 0.5)
    scheduled.load_state_dict(state)
    make(params).load_state_dict(scheduled.state_dict())


def test_an_estimate_that_waits_for_its_step_cannot_be_saved_and_does_not_outlive_a_load():
    theta = torch.nn.Parameter(torch.ones(2))
    opt = SophiaH([theta])
    state = opt.state_dict()
    opt.update_curvature(loss=theta.square().sum())
    with pytest.raises(InvalidState, match=r"state_dict: update_curvature was called.*save after step\(\)"):
        opt.state_dict()
    opt.load_state_dict(state)
    theta.grad = torch.ones(2)
    with pytest.raises(InvalidState, match="curvature is due at step 1"):
        opt.step()


def sophia_g_state(steps=3):
    return Run(KINDS["sophia-g"]).go(steps).opt.state_dict()


def damaged(change, steps=3):
    state = copy.deepcopy(sophia_g_state(steps))
    change(state)
    return state


def drop_slot(state):
    del state["state"][3]["hessian"]


def drop_step(state):
    del state["state"][0]["step"]


def drop_refreshes(state):
    del state["state"][1]["refreshes"]


def reshape_slot(state):
    state["state"][3]["exp_avg"] = torch.zeros(4)


def replace_slot(state):
    state["state"][3]["exp_avg"] = "torn"


def negative_rate(state):
    state["param_groups"][0]["lr"] = -1.0


REFUSED = {
    "nothing": (lambda: None, "found a NoneType without 'state' and 'param_groups'"),
    "an empty mapping": (dict, "found a dict without 'state' and 'param_groups'"),
    "no state": (lambda: damaged(lambda s: s.pop("state")), "without 'state' and 'param_groups'"),
    "an emptied state": (lambda: damaged(lambda s: s["state"].clear()), "found no state after 3 steps"),
    "no groups": (
        lambda: damaged(lambda s: s["param_groups"].clear()),
        r"found groups of \[\] parameters, expected \[4\]",
    ),
    "no params": (lambda: damaged(lambda s: s["param_groups"][0].pop("params")), r"found groups of \[0\] parameters"),
    "fewer parameters": (lambda: damaged(lambda s: s["param_groups"][0]["params"].pop()), r"found groups of \[3\]"),
    "a lost setting": (lambda: damaged(lambda s: s["param_groups"][0].pop("rho")), "its groups lack rho"),
    "a bad setting": (lambda: damaged(negative_rate), "lr: found -1.0"),
    "a lost slot": (lambda: damaged(drop_slot), "parameter 3 has no 'hessian'"),
    "a lost count": (lambda: damaged(drop_step), "parameter 0 has no 'step'"),
    "an older state": (lambda: damaged(drop_refreshes), "parameter 1 has no 'refreshes'"),
    "another model's slot": (
        lambda: damaged(reshape_slot),
        r"'exp_avg' of parameter 3 has the shape \(4,\), expected \(3,\)",
    ),
    "something else's slot": (lambda: damaged(replace_slot), "'exp_avg' of parameter 3"),
    "torch's AdamW": (lambda: Run(torch.optim.AdamW).go(3).opt.state_dict(), "it was not written by SophiaG"),
    "AdamW": (lambda: Run(AdamW).go(3).opt.state_dict(), "its groups lack .*rho"),
    "SGD": (lambda: Run(SGD).go(3).opt.state_dict(), "it was not written by SophiaG"),
    "SophiaH": (lambda: Run(SophiaH).go(3).opt.state_dict(), "it was not written by SophiaG"),
}


@pytest.mark.parametrize(("state", "message"), REFUSED.values(), ids=REFUSED)
def test_a_foreign_or_torn_state_is_refused_whole(state, message):
    run, state = Run(KINDS["sophia-g"]).go(5), state()
    before = snapshot(run.opt)
    with pytest.raises(InvalidArgument, match=message) as caught:
        run.opt.load_state_dict(state)
    assert "\n" not in str(caught.value)
    assert_unchanged(run.opt, before)


@pytest.mark.parametrize("steps", [0, 3])
def test_sophia_h_refuses_sophia_gs_state_although_the_slots_are_alike(steps):
    run = Run(KINDS["sophia-h"])
    with pytest.raises(
        InvalidArgument, match=r"'gauss-newton-bartlett', expected 'hutchinson'.*not written by SophiaH"
    ):
        run.opt.load_state_dict(sophia_g_state(steps))


# Groups and schedules


@each_kind
def test_each_group_follows_its_own_learning_rate(make):
    def weights(*rates):
        torch.manual_seed(0)
        a, b = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.full((3,), 2.0))
        opt = make([{"params": [a], "lr": rates[0]}, {"params": [b], "lr": rates[1]}])
        for _ in range(3):
            output = torch.stack([a * 2, b * b])
            loss = F.cross_entropy(output, torch.tensor([0, 1]))
            if getattr(opt, "curvature_due", False):
                opt.update_curvature(loss=loss, logits=output)
            loss.backward()
            opt.step()
            opt.zero_grad()
        return a.detach(), b.detach()

    moved, held = weights(0.1, 0.0)
    assert (moved != 1).all()
    assert (held == 2).all()
    held, moved = weights(0.0, 0.1)
    assert (held == 1).all()
    assert (moved != 2).all()


def test_sophias_groups_have_their_own_rho_betas_and_decay():
    a, b = torch.nn.Parameter(torch.tensor([1.0])), torch.nn.Parameter(torch.tensor([1.0]))
    groups = [{"params": [a], "rho": 1.0, "weight_decay": 0.5}, {"params": [b], "rho": 2.0, "betas": (0.5, 0.75)}]
    opt = SophiaH(groups, lr=0.1, betas=(0.0, 0.0), weight_decay=0.0)
    loss = (a**2 + b**2).sum() * 2  # gradient and Hessian 4
    opt.update_curvature(loss=loss)
    loss.backward()
    opt.step()
    assert a.item() == pytest.approx(1 - 0.1 * 0.5 - 0.1 * 4 / (1.0 * 4))
    assert b.item() == pytest.approx(1 - 0.1 * min(1, (0.5 * 4) / (2.0 * 0.25 * 4)))


@pytest.mark.parametrize("name", ["every", "seed", "likelihood", "estimator"])
def test_what_all_groups_share_is_refused_in_a_group(name):
    opt = SophiaG([torch.nn.Parameter(torch.ones(1))])
    before = snapshot(opt)
    with pytest.raises(InvalidArgument, match=f"{name}: found 'other' in a group.*shared by all groups"):
        opt.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], name: "other"})
    assert_unchanged(opt, before)


@each_sophia
def test_one_cycle_moves_sophias_rate_and_momentum(make):
    run = Run(make)
    run.schedule = lr_scheduler.OneCycleLR(run.opt, max_lr=0.02, total_steps=30)
    seen = []
    for _ in range(29):
        run.go(1)
        seen.append((run.opt.param_groups[0]["lr"], run.opt.param_groups[0]["betas"]))
    rates = [lr for lr, _ in seen]
    assert max(rates) == pytest.approx(0.02)
    assert rates[0] < rates[8] > rates[-1]
    assert {betas[1] for _, betas in seen} == {0.99}
    assert min(betas[0] for _, betas in seen) == pytest.approx(0.85)


@pytest.mark.parametrize("kind", [Apollo, DiagonalNewton])
def test_one_cycle_without_momentum(kind):
    """Neither has betas or momentum; torch says so, and with cycle_momentum=False the rate is moved."""
    theta = torch.nn.Parameter(torch.ones(2))
    opt = kind([theta], lr=1.0)
    with pytest.raises(ValueError, match="cycle_momentum"):
        lr_scheduler.OneCycleLR(opt, max_lr=0.02, total_steps=8)
    schedule = lr_scheduler.OneCycleLR(opt, max_lr=0.02, total_steps=10, cycle_momentum=False)
    rates = []
    for _ in range(7):
        loss = theta.square().sum()
        if getattr(opt, "curvature_due", False):
            opt.update_curvature(loss=loss)
        loss.backward()
        opt.step()
        opt.zero_grad()
        schedule.step()
        rates.append(opt.param_groups[0]["lr"])
    assert max(rates) == pytest.approx(0.02)
    assert rates[0] < max(rates) > rates[-1]
    assert (theta != 1).all()


def test_the_scheduled_rate_is_the_one_that_is_used():
    theta = torch.nn.Parameter(torch.zeros(1))
    opt = SophiaH([theta], lr=1.0, every=100, weight_decay=0.0)
    schedule = lr_scheduler.LambdaLR(opt, lambda step: 2.0**-step)
    places = []
    for _ in range(4):
        loss = theta.sum()  # no curvature: every step is lr * sign
        if opt.curvature_due:
            opt.update_curvature(loss=loss)
        loss.backward()
        opt.step()
        schedule.step()
        places.append(theta.item())
    assert places == [-1.0, -1.5, -1.75, -1.875]


@each_kind
def test_a_schedule_that_turns_a_hyperparameter_illegal_is_stopped_before_anything_moves(make):
    run = Run(make).go(1)
    for param in run.model.parameters():
        param.grad = torch.ones_like(param)
    run.opt.param_groups[0]["lr"] = -0.1
    before = snapshot(run.opt)
    with pytest.raises(InvalidArgument, match=r"lr: found -0\.1"):
        run.opt.step()
    assert_unchanged(run.opt, before)


@each_sophia
def test_a_group_added_later_is_trained_with_the_others(make):
    run = Run(make).go(12)
    extra = torch.nn.Parameter(torch.zeros(3))
    run.opt.add_param_group({"params": [extra], "lr": 0.5})
    assert run.opt.param_groups[1]["step"] == 12
    assert run.opt.curvature_due
    run.schedule.base_lrs.append(0.5)
    run.schedule.lr_lambdas.append(run.schedule.lr_lambdas[0])
    linear = run.model
    run.model = lambda x: linear(x) + extra
    run.go(10)
    assert (extra != 0).all()
    assert run.opt.state[extra]["hessian"].abs().sum() > 0
    counts = [(run.opt.state[param]["step"], run.opt.state[param]["refreshes"]) for param in (linear[0].weight, extra)]
    assert counts == [(22, 4), (10, 2)]  # at steps 1, 11, 13 (asked for by the newcomer) and 21
    assert run.opt.steps == 22


def test_a_parameter_that_comes_between_the_estimate_and_its_step_is_refused():
    a, late = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    opt = SophiaH([a])
    opt.update_curvature(loss=a.square().sum())
    opt.add_param_group({"params": [late]})
    a.grad = late.grad = torch.ones(2)
    with pytest.raises(InvalidState, match="parameters were added or unfrozen after update_curvature"):
        opt.step()
    assert a.tolist() == [1.0, 1.0]


# maximize, closures


@each_kind
def test_maximizing_is_minimizing_the_negated_loss(make):
    climbed, descended = Run(make, maximize=True).go(30), Run(make).go(30, sign=-1.0)
    for a, b in zip(climbed.everything()[0], descended.everything()[0], strict=True):
        assert torch.equal(a, b)
    unlike = Run(make).go(30)
    assert not torch.equal(climbed.model[0].weight, unlike.model[0].weight)


@each_kind
def test_a_closure_that_calls_backward_gives_the_same_run(make):
    explicit = Run(make).go(25)
    run = Run(make)
    for step in range(25):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(16, 5, generator=generator)
        y = torch.randint(3, (16,), generator=generator)

        def closure(x=x, y=y):
            run.opt.zero_grad()
            logits = run.model(x)
            loss = F.cross_entropy(logits, y)
            if getattr(run.opt, "curvature_due", False):
                run.opt.update_curvature(loss=loss, logits=logits)
            loss.backward()
            return loss

        loss = run.opt.step(closure)
        assert loss.requires_grad
        run.schedule.step()
    assert_identical(run, explicit)


# Frozen, unused, empty and half-precision parameters


@each_kind
def test_a_frozen_parameter_never_moves_not_even_by_a_gradient_from_before(make):
    run = Run(make).go(3)
    frozen = run.model[0].weight
    frozen.requires_grad_(False)
    frozen.grad = torch.ones_like(frozen)
    before, slots = frozen.detach().clone(), copy.deepcopy(run.opt.state[frozen])
    run.go(1)
    frozen.grad = torch.ones_like(frozen)
    run.go(20)
    assert torch.equal(frozen, before)
    assert all(torch.equal(torch.as_tensor(slots[k]), torch.as_tensor(v)) for k, v in run.opt.state[frozen].items())


@each_kind
def test_a_parameter_without_a_gradient_is_named_or_skipped_as_chosen(make):
    def run(**settings):
        used, unused = torch.nn.Parameter(torch.ones(1, 2)), torch.nn.Parameter(torch.ones(3))
        opt = make([("used.weight", used), ("unused.weight", unused)], **settings)
        logits = used * 2
        loss = F.cross_entropy(logits, torch.tensor([0]))
        if hasattr(opt, "update_curvature"):
            opt.update_curvature(loss=loss, logits=logits)
        loss.backward()
        return opt, used, unused

    opt, used, unused = run()
    with pytest.raises(InvalidState) as caught:
        opt.step()
    message = str(caught.value)
    assert message.startswith("parameter 'unused.weight' (group 0, position 1, shape (3,)) has no gradient; ")
    assert "missing='skip'" in message
    assert "\n" not in message
    assert used.tolist() == [[1.0, 1.0]]
    assert not opt.state

    opt, used, unused = run(missing="skip")
    opt.step()
    assert (used != 1).all()
    assert unused.tolist() == [1.0, 1.0, 1.0]
    assert unused not in opt.state


@each_kind
def test_empty_and_zero_dimensional_parameters_are_trained(make):
    empty, scalar = torch.nn.Parameter(torch.zeros(0, 3)), torch.nn.Parameter(torch.tensor(1.0))
    opt = make([empty, scalar])
    logits = torch.stack([scalar, -scalar + empty.sum()]).unsqueeze(0)
    loss = F.cross_entropy(logits, torch.tensor([0]))
    if hasattr(opt, "update_curvature"):
        opt.update_curvature(loss=loss, logits=logits)
    loss.backward()
    opt.step()
    assert scalar.item() > 1
    assert empty.shape == (0, 3)


def test_clip_fraction_is_nan_before_the_first_step_and_counts_by_hand_after_it():
    theta = torch.nn.Parameter(torch.zeros(4))
    opt = SophiaH([theta], lr=0.1, betas=(0.0, 0.0), rho=0.5)
    assert opt.clip_fraction() != opt.clip_fraction()
    curvature, slope = torch.tensor([1.0, 1.0, 4.0, -1.0]), torch.tensor([0.1, 0.6, 1.0, 0.1])
    loss = (curvature * theta**2 / 2 + slope * theta).sum()
    opt.update_curvature(loss=loss)
    loss.backward()
    opt.step()  # |m| >= 0.5 h: no, yes, no, yes
    assert opt.clip_fraction() == 0.5


def test_a_group_added_after_loading_has_what_was_loaded():
    """Settings of the whole optimizer come from the checkpoint then, not from the constructor."""
    theta, late = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    saved = SophiaG([theta], every=3, nonfinite="skip").state_dict()
    opt = SophiaG([theta], every=7)
    opt.load_state_dict(saved)
    opt.add_param_group({"params": [late]})
    assert [(group["every"], group["nonfinite"]) for group in opt.param_groups] == [(3, "skip"), (3, "skip")]
