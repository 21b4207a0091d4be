"""K-FAC, SP-NGD and THOR as optimizers: steps against dense solutions, policies, checkpoints, loops people write."""

import copy
import io
import logging
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.amp import GradScaler
from torch.nn import functional as F

from hessiod.core import InvalidArgument, InvalidState, NonFinite
from hessiod.torch import KFAC, SPNGD, THOR, AdamW, RunningMixup

F64 = torch.float64
EVERY = dict(factor_every=1, inverse_every=1)
KINDS = {
    "kfac": lambda model, **options: KFAC(model, **{"lr": 0.1, "factor_every": 2, "inverse_every": 4, **options}),
    "kfac-empirical": lambda model, **options: KFAC(model, **{"lr": 0.1, "fisher": "empirical", **options}),
    "spngd": lambda model, **options: SPNGD(model, **{"lr": 0.1, **options}),
    "thor": lambda model, **options: THOR(model, **{"lr": 0.1, "factor_every": 2, "block_size": 3, **options}),
}
each_kind = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


def net(dtype=torch.float32):
    """Every kind of layer, and a parameter that no layer covers."""
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolve = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
            self.grouped = nn.Conv2d(4, 4, 2, stride=2, groups=2)
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
            self.norm = nn.LayerNorm(4)
            self.head = nn.Linear(4, 3)
            self.scale = nn.Parameter(torch.ones(4))

        def forward(self, x):
            x = self.grouped(self.convolve(x)).flatten(2).mT
            x = self.norm(x + self.attention(x, x, x)[0])
            return self.head(self.scale * x.mean(1))

    return Net().to(dtype)


def batch(step, dtype=torch.float32):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(8, 1, 4, 4, generator=generator).to(dtype), torch.randint(3, (8,), generator=generator)


def train(model, opt, start, stop, scaler=None, dtype=torch.float32, autocast=False):
    for step in range(start, stop):
        x, y = batch(step, dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = model(x)
        loss = F.cross_entropy(logits.float() if autocast else logits, y)
        if opt.curvature_due:
            opt.update_curvature(loss=loss, logits=logits)
        if scaler is None:
            loss.backward()
            opt.step()
        else:
            scaler.scale(loss).backward()
            scaler.step(opt)
            scaler.update()
        opt.zero_grad()
    return loss.item()


def tensors(model, opt):
    found = list(model.parameters())
    for param in model.parameters():
        for value in opt.state.get(param, {}).values():
            found += value if isinstance(value, list) else [torch.as_tensor(value)] if torch.is_tensor(value) else []
    return found


def assert_equal(ours, theirs):
    ours, theirs = tensors(*ours), tensors(*theirs)
    assert len(ours) == len(theirs) > 20
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)


# The step


@pytest.mark.parametrize("inverse", ["cholesky", "eigen", "newton-schulz"])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_a_step_is_the_dense_damped_natural_gradient(inverse, dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).to(dtype)
    x, y = torch.randn(32, 5, dtype=dtype), torch.randint(3, (32,))
    opt = KFAC(model, lr=1.0, momentum=0.0, damping=0.01, kl_clip=None, fisher="empirical", inverse=inverse, **EVERY)
    before = [p.detach().double().clone() for p in model.parameters()]
    F.cross_entropy(model(x), y).backward()
    opt.step()
    for index, layer in enumerate(opt.layers):
        a, g = (opt.state[layer.params[0]][f"factor_{name}"].double() for name in "ag")
        pi = (a.trace() / len(a) / (g.trace() / len(g))) ** 0.5
        a, g = a + pi * 0.1 * torch.eye(len(a), dtype=F64), g + 0.1 / pi * torch.eye(len(g), dtype=F64)
        grad = layer.matrix([p.grad.double() for p in layer.params])
        expected = torch.linalg.solve(torch.kron(a, g), grad.T.reshape(-1)).reshape(grad.T.shape).T
        moved = [old - new.detach().double() for old, new in zip(before[2 * index :], layer.params, strict=False)]
        found = layer.matrix(moved)
        assert (found - expected).norm() / expected.norm() < (1e-5 if dtype == torch.float32 else 1e-11)


def test_the_trust_region_uses_the_schedulers_present_rate():
    """``lr^2 nu^2 <V, grad>`` is kappa at every rate: without momentum the KL of each step is the same."""
    torch.manual_seed(0)
    model = nn.Linear(6, 4).double()
    opt = KFAC(model, lr=1.0, momentum=0.0, damping=1e-3, kl_clip=1e-4, fisher="empirical", **EVERY)
    schedule = torch.optim.lr_scheduler.ExponentialLR(opt, 0.5)
    x, y = torch.randn(32, 6, dtype=F64), torch.randint(4, (32,))
    seen = []
    for _ in range(8):
        before = [p.detach().clone() for p in model.parameters()]
        F.cross_entropy(model(x), y).backward()
        lr = opt.param_groups[0]["lr"]
        opt.step()
        state, grad = opt.state[model.weight], torch.cat([model.weight.grad, model.bias.grad[:, None]], 1)
        v = state["inverse_g"][0] @ grad @ state["inverse_a"][0]
        moved = torch.cat([before[0] - model.weight, (before[1] - model.bias)[:, None]], 1).detach()
        nu = float(moved.norm() / (lr * v.norm()))
        assert nu == pytest.approx(min(1.0, (1e-4 / (lr**2 * float((v * grad).sum()))) ** 0.5), rel=1e-9)
        seen.append(nu)
        opt.zero_grad()
        schedule.step()
    assert seen[0] < 0.5
    assert seen[-1] == pytest.approx(1.0, rel=1e-9)  # small steps are left as they are


@each_kind
def test_a_batch_given_twice_over_takes_the_same_step(make):
    """Damping and trust region do not depend on the size of the batch; BatchNorm's unit-wise blocks neither."""
    found = []
    for copies in (1, 3):
        model = net(F64)
        opt = make(model, fisher="empirical")
        for step in range(3):
            x, y = batch(step, F64)
            F.cross_entropy(model(x.repeat(copies, 1, 1, 1)), y.repeat(copies)).backward()
            opt.step()
            opt.zero_grad()
        found.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert (found[0] - found[1]).norm() / found[0].norm() < 1e-12


@pytest.mark.parametrize("counted", [False, True])
def test_micro_batches_add_up_to_the_whole_batch(counted):
    found = []
    for parts in (1, 4):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 3)).double()
        opt = KFAC(model, lr=0.1, fisher="empirical", **EVERY)
        for step in range(3):
            generator = torch.Generator().manual_seed(step)
            x = torch.randn(16, 6, dtype=F64, generator=generator)
            y = torch.randint(3, (16,), generator=generator)
            for piece, target in zip(x.chunk(parts), y.chunk(parts), strict=True):
                logits = model(piece)
                loss = F.cross_entropy(logits, target)
                if counted:
                    opt.update_curvature(loss=loss, logits=logits)
                (loss / parts).backward()
            opt.step()
            opt.zero_grad()
        found.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert (found[0] - found[1]).norm() / found[0].norm() < 1e-12


def test_zero_grad_drops_the_statistics_of_a_backward_pass_that_was_not_for_a_step():
    """An adversary's loss, or the gradient with respect to the inputs, is no part of the next step."""
    weights = []
    for others in (False, True):
        model = net(F64)
        opt = KFAC(model, lr=0.1, fisher="empirical", **EVERY)
        for step in range(3):
            for other in (batch(9, F64), batch(10, F64)) if others else ():
                model.convolve[1].eval()  # its moving statistics see no other batch
                x, y = other[0].requires_grad_(), other[1]
                torch.autograd.grad(F.cross_entropy(model(x), y), x)
                F.cross_entropy(model(x), y).backward()
                model.convolve[1].train()
            x, y = batch(step, F64)
            logits = model(x)
            if step == 1:
                y[:3] = -100
                opt.update_curvature(loss=F.cross_entropy(logits, y), logits=logits)
            opt.zero_grad()
            F.cross_entropy(logits, y).backward()
            opt.step()
        weights.append([param.detach().clone() for param in model.parameters()])
    assert all(map(torch.equal, *weights))


def test_ignored_targets_are_not_counted():
    found = []
    for padding in (0, 24):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
        opt = KFAC(model, lr=0.1, **EVERY, fisher="empirical")
        x, y = torch.randn(8, 6, dtype=F64), torch.randint(3, (8,))
        x = torch.cat([x, x.repeat(3, 1)[:padding]])
        y = torch.cat([y, torch.full((padding,), -100)])
        logits = model(x)
        loss = F.cross_entropy(logits, y)
        opt.update_curvature(loss=loss, logits=logits)
        loss.backward()
        opt.step()
        found.append(opt.state[model[2].weight]["factor_g"])
    torch.testing.assert_close(*found, rtol=1e-12, atol=0)


def test_thor_with_whole_blocks_and_no_trace_rule_is_kfac_without_an_average():
    runs = []
    for make in (
        lambda model: THOR(model, lr=0.1, damping=1e-2, block_size=1000, thresholds=None, factor_every=3),
        lambda model: KFAC(
            model, lr=0.1, damping=1e-2, fisher="empirical", factor_decay=0.0, factor_every=3, inverse_every=3
        ),
    ):
        model = net()
        train(model, make(model), 0, 8)
        runs.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*runs)


# Policies


def test_spngd_refreshes_each_statistic_at_its_own_intervals():
    """Weights that hardly move: the statistics of a fixed batch stand still, and intervals are Fibonacci's."""
    model = net()
    opt = SPNGD(model, lr=1e-9, momentum=0.0)
    seen = []
    for step in range(1, 30):
        due = opt.curvature_due
        x, y = batch(0)
        F.cross_entropy(model(x), y).backward()
        opt.step()
        opt.zero_grad()
        if due:
            seen.append(step)
    assert seen == [1, 2, 3, 5, 8, 13, 21]


def test_spngd_gives_every_statistic_an_interval_of_its_own():
    """Inputs stand still while gradients change by their size."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    opt = SPNGD(model, lr=1e-9, likelihood="gaussian", reduction="batchmean")
    x = torch.randn(16, 4)
    for step in range(1, 8):
        ((model(x) * 2.0**step).sum() / 16).backward()
        opt.step()
        opt.zero_grad()
    state = opt.state[model.weight]
    assert state["interval_a"] == (8, 3, 2)
    assert state["interval_g"] == (8, 1, 1)


def test_thor_freezes_layers_that_stand_still_and_takes_no_statistics_of_them():
    model = net()
    opt = THOR(model, lr=0.0, factor_every=3, fallback_lr=0.0)
    for _ in range(12):
        x, y = batch(0)
        F.cross_entropy(model.eval()(x), y).backward()
        opt.step()
        opt.zero_grad()
    assert set(opt.checks().values()) == {("frozen", None)}
    assert not opt.curvature_due
    x, y = batch(1)
    F.cross_entropy(model(x), y).backward()
    assert not opt._capture.sums.outputs
    opt.step()


def test_thor_without_thresholds_refreshes_at_a_fixed_frequency_as_nn_thor_documents():
    """A and G of one batch at steps 1, 1 + frequency, ..., held between."""
    model = net()
    opt = THOR(model, lr=0.01, factor_every=4, thresholds=None)
    due, seen = [], []
    for step in range(1, 11):
        if opt.curvature_due:
            due.append(step)
        train(model, opt, step, step + 1)
        seen.append(opt.state[model.head.weight]["factor_g"].clone())
    assert due == [1, 5, 9]
    assert [torch.equal(a, b) for a, b in pairwise(seen)] == [True, True, True, False] * 2 + [True]


def test_thor_keeps_between_the_thresholds():
    model = net()
    opt = THOR(model, lr=1e-3, factor_every=3, thresholds=(1e9, 0.0), longest=6)
    train(model, opt, 0, 12)
    assert {found for found, _ in opt.checks().values()} == {"kept"}
    assert {following for _, following in opt.checks().values()} == {4 + 6 + 6}


def test_recipes_of_damping_and_momentum():
    model = net()
    opt = SPNGD(model, lr=0.1, damping=1e-4, damping_start=1e-2, damping_steps=2, couple_momentum=True, momentum=0.8)
    seen = []
    for step in range(3):
        opt.param_groups[0]["lr"] = 0.1 / 2**step
        train(model, opt, step, step + 1)
        seen.append((opt.damping, opt.values_of(opt.param_groups[0])["momentum"]))
    assert seen == [(pytest.approx(d), pytest.approx(m)) for d, m in ((1e-2, 0.8), (1e-3, 0.4), (1e-4, 0.2))]
    opt = THOR(model, damping=0.1, damping_decay=0.5, epoch_steps=1)
    train(model, opt, 0, 11)
    assert opt.damping == pytest.approx(0.05)


def test_rescaling_shortens_long_weights_and_leaves_short_ones():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.mul_(100)
        model[1].weight.copy_(0.1 * torch.eye(2))
    opt = SPNGD(model, lr=0.0, rescale=["*"])
    F.cross_entropy(model(torch.randn(3, 4)), torch.zeros(3, dtype=torch.long)).backward()
    opt.step()
    assert model[0].weight.norm().item() == pytest.approx(2.0, rel=1e-6)  # sqrt(2 * 2)
    assert torch.equal(model[1].weight, 0.1 * torch.eye(2))


def test_running_mixup_resumes_and_passes_batches_of_another_size():
    batches = [(torch.full((4, 2), float(k)), F.one_hot(torch.full((4,), k % 3), 3).float()) for k in range(8)]
    mix = RunningMixup(0.4, seed=1)
    seen = [mix(*batch) for batch in batches]
    assert torch.equal(seen[0][0], batches[0][0])
    for x, y in seen:
        torch.testing.assert_close(y.sum(1), torch.ones(4))
        assert (x >= 0).all()
    first = RunningMixup(0.4, seed=1)
    for batch in batches[:4]:
        first(*batch)
    second = RunningMixup(0.4, seed=9)
    second.load_state_dict(first.state_dict())
    for batch, expected in zip(batches[4:], seen[4:], strict=True):
        assert torch.equal(second(*batch)[0], expected[0])
    short = torch.ones(3, 2), torch.ones(3, 3) / 3
    assert torch.equal(mix(*short)[0], short[0])
    with pytest.raises(InvalidArgument, match=r"targets: found torch\.int64, expected probabilities"):
        mix(torch.ones(3, 2), torch.zeros(3, dtype=torch.long))


def test_levenberg_marquardt_lowers_damping_while_the_model_is_right_and_raises_it_when_it_is_not():
    torch.manual_seed(0)
    model = nn.Linear(5, 3).double()
    x, y = torch.randn(64, 5, dtype=F64), torch.randn(64, 3, dtype=F64)

    def loss():
        return (model(x) - y).square().sum() / 2 / 64

    options = dict(likelihood="gaussian", reduction="batchmean", kl_clip=None, momentum=0.0, adapt_every=1)
    opt = KFAC(model, lr=1.0, damping=1e-2, **options, **EVERY)
    seen = [opt.damping]
    for _ in range(3):
        before, logits = None, model(x)
        before = (logits - y).square().sum() / 2 / 64
        opt.update_curvature(loss=before, logits=logits)
        before.backward()
        opt.step()
        opt.zero_grad()
        assert opt.damping_due
        opt.update_damping(before, loss().detach())
        seen.append(opt.damping)
    assert seen[1] == pytest.approx(1e-2 * 0.95)  # a quadratic loss is predicted
    with pytest.raises(InvalidState, match="update_damping: it is due after every adapt_every-th step"):
        opt.update_damping(1.0, 2.0)
    logits = model(x)
    before = (logits - y).square().sum() / 2 / 64
    opt.update_curvature(loss=before, logits=logits)
    before.backward()
    opt.step()
    last = opt.damping
    opt.update_damping(before, before + 1.0)
    assert opt.damping == pytest.approx(last / 0.95)


# torch's habits


@each_kind
def test_it_trains_every_kind_of_layer(make):
    model = net()
    opt = make(model, damping=1e-2)
    losses = []
    for _ in range(15):
        losses.append(train(model, opt, 0, 1))
    assert losses[-1] < 0.5 * losses[0]


@each_kind
def test_a_resumed_run_is_the_same_bit_for_bit(make):
    whole = net()
    opt = make(whole)
    train(whole, opt, 0, 11)
    model = net()
    first = make(model)
    train(model, first, 0, 6)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "opt": first.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other = net()
    second = make(other, lr=0.7)
    other.load_state_dict(saved["model"])
    second.load_state_dict(saved["opt"])
    train(other, second, 6, 11)
    assert_equal((whole, opt), (other, second))


def test_a_checkpoint_of_another_model_is_refused_and_nothing_is_changed():
    model, wider = nn.Linear(4, 3), nn.Linear(4, 3, bias=False)
    opt = KFAC(model, fisher="empirical")
    F.cross_entropy(model(torch.randn(8, 4)), torch.zeros(8, dtype=torch.long)).backward()
    opt.step()
    saved = opt.state_dict()
    with pytest.raises(InvalidArgument, match="state_dict: found groups of"):
        KFAC(wider, fisher="empirical").load_state_dict(saved)
    saved = copy.deepcopy(saved)
    saved["state"][0]["factor_a"] = torch.eye(7)
    before = copy.deepcopy(opt.state_dict())
    with pytest.raises(InvalidArgument, match=r"state_dict: factor A of layer .* has the shape \(7, 7\), expected \(5"):
        opt.load_state_dict(saved)
    assert str(before) == str(opt.state_dict())


@each_kind
@pytest.mark.parametrize("scale", [1024.0])
def test_a_grad_scaler_of_1024_equals_no_scaling_bit_for_bit(make, scale):
    plain, scaled = net(), net()
    opts = make(plain), make(scaled)
    train(plain, opts[0], 0, 7)
    train(scaled, opts[1], 0, 7, GradScaler("cpu", init_scale=scale, growth_interval=10**6))
    assert_equal((plain, opts[0]), (scaled, opts[1]))


def test_a_step_that_the_scaler_skips_leaves_everything_and_curvature_is_due_still():
    model = net()
    opt, scaler = KINDS["spngd"](model), GradScaler("cpu", init_scale=4.0)
    train(model, opt, 0, 2, scaler)
    before = copy.deepcopy(tensors(model, opt))
    x, y = batch(2)
    scaler.scale(F.cross_entropy(model(x), y)).backward()
    model.head.weight.grad[0, 0] = float("inf")
    scaler.step(opt)
    scaler.update()
    assert all(torch.equal(a, b) for a, b in zip(before, tensors(model, opt), strict=True))
    assert (opt.steps, opt.curvature_due) == (2, True)
    assert not opt._capture.sums.outputs


def test_unscaled_gradients_need_the_scaler_for_the_empirical_fisher():
    found = []
    for unscaled in (False, True):
        model = net()
        scaler = GradScaler("cpu", init_scale=1024.0)
        opt = SPNGD(model, lr=0.1, grad_scaler=scaler if unscaled else None)
        x, y = batch(0)
        scaler.scale(F.cross_entropy(model(x), y)).backward()
        if unscaled:
            scaler.unscale_(opt)
        scaler.step(opt)
        scaler.update()
        found.append((model, opt))
    assert_equal(*found)
    model, scaler = net(), GradScaler("cpu", init_scale=1024.0)
    opt = SPNGD(model, lr=0.1)
    scaler.scale(F.cross_entropy(model(x), y)).backward()
    scaler.unscale_(opt)
    before = copy.deepcopy(tensors(model, opt))
    with pytest.raises(InvalidState, match="construct SPNGD with grad_scaler=scaler"):
        scaler.step(opt)
    assert all(torch.equal(a, b) for a, b in zip(before, tensors(model, opt), strict=True))


@each_kind
def test_under_autocast_factors_are_float32_and_it_trains(make):
    model = net()
    opt = make(model, damping=1e-2)
    first = train(model, opt, 0, 1, autocast=True)
    for _ in range(15):
        last = train(model, opt, 0, 1, autocast=True)
    assert last < 0.6 * first
    for param in model.parameters():
        for name, value in opt.state[param].items():
            if torch.is_tensor(value):
                assert value.dtype == torch.float32, name


@each_kind
def test_bfloat16_parameters_have_float32_factors_that_survive_a_checkpoint(make):
    model = net(torch.bfloat16)
    opt = make(model)
    train(model, opt, 0, 5, dtype=torch.bfloat16)
    other = net(torch.bfloat16)
    other.load_state_dict(model.state_dict())
    second = make(other)
    second.load_state_dict(opt.state_dict())
    assert_equal((model, opt), (other, second))
    assert opt.state[model.head.weight]["factor_a"].dtype == torch.float32


def test_groups_have_their_own_rates_and_schedulers_move_them():
    model = net()
    bodies = [param for name, param in model.named_parameters() if not name.startswith("head")]
    groups = [{"params": bodies}, {"params": model.head.parameters(), "lr": 0.0, "momentum": 0.5}]
    opt = KFAC(model, lr=0.1, params=groups, fisher="empirical")
    assert [(group["lr"], group["covered"]) for group in opt.param_groups] == [(0.1, True), (1e-3, False), (0.0, True)]
    schedule = torch.optim.lr_scheduler.OneCycleLR(opt, [0.2, 0.002, 0.0], total_steps=5)
    before = model.head.weight.detach().clone()
    train(model, opt, 0, 3)
    assert torch.equal(model.head.weight, before)
    schedule.step()
    assert opt.param_groups[1]["lr"] > 1e-4


def test_parameters_that_are_not_listed_stay():
    model = net()
    opt = KFAC(model, params=model.head.parameters(), fisher="empirical")
    before = model.norm.weight.detach().clone()
    train(model, opt, 0, 2)
    assert torch.equal(model.norm.weight, before)
    assert [row.parameter for row in opt.plan()] == ["head.weight", "head.bias"]


def test_maximize_is_descent_on_minus_the_loss():
    models = net(F64), net(F64)
    for model, sign in zip(models, (1, -1), strict=True):
        opt = KFAC(model, lr=0.1, fisher="empirical", maximize=sign < 0, **EVERY)
        for step in range(3):
            x, y = batch(step, F64)
            (sign * F.cross_entropy(model(x), y)).backward()
            opt.step()
            opt.zero_grad()
    for ours, theirs in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


def test_the_plan_says_what_each_parameter_gets(caplog):
    model = net()
    with caplog.at_level(logging.INFO, "hessiod"):
        plan = KFAC(model, skip=["head", "LayerNorm"], block_size=3, fallback="sgd").plan()
    rows = {row.parameter: (row.treatment, row.detail) for row in plan}
    assert rows["convolve.0.weight"] == ("KFAC", "convolution, A 10 x 10 in 4 blocks, G 4 x 4 in 2 blocks")
    assert rows["convolve.1.bias"] == ("KFAC", "unit-wise, 4 blocks of 2 x 2")
    assert rows["grouped.weight"] == ("KFAC", "convolution, A 2 x 9 x 9 in 3 blocks, G 2 x 2 x 2")
    assert rows["attention.in_proj_weight"][0] == "KFAC"
    assert rows["head.bias"] == ("sgd", "skip='head'")
    assert rows["norm.weight"] == ("sgd", "skip='LayerNorm'")
    assert rows["scale"] == ("sgd", "Net has no Kronecker-factored form here")
    assert set(rows) == {name for name, _ in model.named_parameters()}
    assert "convolve.0.weight" in caplog.text


def test_the_fallback_is_adamw_bit_for_bit():
    models = net(), net()
    opt = KFAC(models[0], fisher="empirical", skip=["convolve.*", "grouped", "attention", "norm"], fallback_lr=0.01)
    other = AdamW([p for n, p in models[1].named_parameters() if not n.startswith("head")], lr=0.01, weight_decay=0.0)
    x, y = batch(0)
    for model, each in zip(models, (opt, other), strict=True):
        F.cross_entropy(model(x), y).backward()
        each.step()
    for (name, ours), theirs in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        assert torch.equal(ours, theirs) != name.startswith("head"), name


# What is refused


def one(**options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3))
    return model, KFAC(model, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(damping=0.0), "damping: found 0.0, expected a number > 0"),
        (dict(damping=-1.0), "damping: found -1.0"),
        (dict(kl_clip=0.0), "kl_clip: found 0.0, expected a number > 0; .*None turns the trust region off"),
        (dict(factor_every=0), "factor_every: found 0"),
        (dict(inverse_every=1.5), "inverse_every: found 1.5"),
        (dict(inverse="lu"), "inverse: found 'lu', expected one of cholesky, eigen, newton-schulz"),
        (dict(fisher="exact"), "fisher: found 'exact'"),
        (dict(likelihood="poisson"), "likelihood: found 'poisson'"),
        (dict(reduction="none"), "reduction: found 'none'"),
        (dict(block_size=0), "block_size: found 0"),
        (dict(fallback="lion"), "fallback: found 'lion'"),
        (dict(fallback_lr=-1.0), "fallback_lr: found -1.0"),
        (dict(lr=-1.0), "lr: found -1.0"),
        (dict(skip="head"), r"skip: found 'head', expected a list of patterns; write skip=\['head'\]"),
        (dict(adapt_every=0), "adapt_every: found 0"),
        (dict(adapt_every=5, maximize=True), "adapt_every: Levenberg"),
        (dict(nonfinite="never"), "nonfinite: found 'never'"),
    ],
)
def test_settings_that_cannot_be(options, message):
    with pytest.raises(InvalidArgument, match=message):
        one(**options)


def test_models_that_cannot_be():
    with pytest.raises(InvalidArgument, match=r"model: found generator, expected a torch.nn.Module"):
        KFAC(nn.Linear(2, 2).parameters())
    with pytest.raises(InvalidArgument, match=r"no layer that KFAC covers \(ConvTranspose2d has no .*use AdamW"):
        KFAC(nn.ConvTranspose2d(2, 2, 3))
    with pytest.raises(InvalidArgument, match=r"no layer that THOR covers \(it has no trained parameters\)"):
        THOR(nn.ReLU())
    with pytest.raises(InvalidArgument, match=r"params: a parameter of shape \(2,\) is not one of the model's"):
        KFAC(nn.Linear(2, 2), params=[nn.Parameter(torch.ones(2))])
    model = nn.Linear(2, 2)
    with pytest.raises(InvalidArgument, match="damping: found in a group; it is shared"):
        KFAC(model, params=[{"params": model.parameters(), "damping": 1.0}])
    with pytest.raises(InvalidArgument, match="thresholds: found"):
        THOR(nn.Linear(2, 2), thresholds=(0.1, 0.2))
    with pytest.raises(InvalidArgument, match=r"damping_start: found 0\.1 with damping_steps=0"):
        SPNGD(nn.Linear(2, 2), damping_start=0.1)


def test_a_step_without_the_statistics_that_are_due():
    model, opt = one()
    x, y = torch.randn(8, 4), torch.zeros(8, dtype=torch.long)
    F.cross_entropy(model(x), y).backward()
    with pytest.raises(InvalidState, match=r"curvature is due at step 1: call update_curvature\(loss=loss, logits="):
        opt.step()
    opt.zero_grad()
    with pytest.raises(InvalidState, match=r"parameter .* has no gradient; call loss\.backward\(\) first"):
        opt.step()


def test_a_weight_used_outside_of_its_layer_is_named():
    model, opt = one(fisher="empirical")
    x, y = torch.randn(8, 4), torch.zeros(8, dtype=torch.long)
    hidden = F.linear(x, model[0].weight, model[0].bias)
    F.cross_entropy(model[2](hidden), y).backward()
    with pytest.raises(InvalidState, match=r"layer 0 has a gradient, but its forward was not seen.*skip=\['0'\]"):
        opt.step()


@pytest.mark.parametrize("fisher", ["empirical", "monte-carlo"])
@pytest.mark.parametrize("choice", ["raise", "skip"])
def test_nan_in_activations_is_refused_and_nothing_is_changed(fisher, choice):
    model = net()
    opt = KFAC(model, fisher=fisher, nonfinite=choice, **EVERY)
    train(model, opt, 0, 2)
    before = copy.deepcopy(tensors(model, opt))
    x, y = batch(2)
    x[0, 0, 0, 0] = float("nan")
    logits = model.eval()(x)
    loss = F.cross_entropy(logits, y)
    opt.update_curvature(loss=loss, logits=logits)
    loss.backward()
    if choice == "raise":
        with pytest.raises(NonFinite, match="nothing was changed"):
            opt.step()
    else:
        opt.step()
    assert all(torch.equal(a, b) for a, b in zip(before, tensors(model, opt), strict=True))
    assert opt.steps == 2
    opt.zero_grad()
    train(model.train(), opt, 3, 5)


def test_nan_that_only_the_statistics_see_is_refused():
    """A gradient may be finite where a second moment overflows."""
    model, opt = one(fisher="empirical")
    x = torch.randn(8, 4)
    x[0] = 1e25
    before = copy.deepcopy(tensors_of(model))
    F.cross_entropy(model(x), torch.zeros(8, dtype=torch.long)).backward()
    with pytest.raises(NonFinite, match=r"curvature estimate .* holds NaN or infinity; nothing was changed"):
        opt.step()
    assert all(torch.equal(a, b) for a, b in zip(before, tensors_of(model), strict=True))


def tensors_of(model):
    return [param.detach() for param in model.parameters()]


def test_a_factor_that_is_not_positive_definite_has_its_damping_raised_and_reported(caplog):
    torch.manual_seed(0)
    model = nn.Linear(40, 3)
    opt = KFAC(model, damping=1e-20, fisher="empirical")
    x = torch.randn(2, 40) * torch.logspace(
        -3, 3, 40
    )  # A has rank 2, and rounding makes some of the other eigenvalues negative
    F.cross_entropy(model(x), torch.zeros(2, dtype=torch.long)).backward()
    with caplog.at_level(logging.WARNING, "hessiod"):
        opt.step()
    used = opt.state[model.weight]["damping"]
    assert used > opt.damping
    assert f"damping raised to {used:.3g}" in caplog.text
    assert torch.isfinite(model.weight).all()


def test_it_cannot_be_copied_nor_given_more_parameters():
    _, opt = one()
    with pytest.raises(InvalidState, match=r"KFAC cannot be copied or pickled.*save state_dict\(\)"):
        copy.deepcopy(opt)
    with pytest.raises(InvalidArgument, match="add_param_group: KFAC takes its parameters from the model"):
        opt.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    assert len(opt.param_groups) == 1


def test_statistics_that_wait_for_their_step_cannot_be_saved():
    model, opt = one(fisher="empirical")
    F.cross_entropy(model(torch.randn(8, 4)), torch.zeros(8, dtype=torch.long)).backward()
    with pytest.raises(InvalidState, match="state_dict: statistics were gathered and their step is yet to come"):
        opt.state_dict()


def test_damping_that_is_set_later_is_checked():
    _, opt = one()
    opt.damping = 0.5
    assert opt.param_groups[0]["damping"] == 0.5
    with pytest.raises(InvalidArgument, match="damping: found 0"):
        opt.damping = 0
    assert opt.damping == 0.5


# Stability


def final_loss(make, number):
    """After twelve steps with random settings: lr 1e-3 to 1, damping 1e-4 to 1, batch 16 to 512, width 4 to 32."""
    generator = torch.Generator().manual_seed(number)

    def draw(low, high):
        return float(low * (high / low) ** torch.rand((), generator=generator))

    lr, damping, size, width = draw(1e-3, 1.0), draw(1e-4, 1.0), round(draw(16, 512)), round(draw(4, 32))
    data = torch.randn(1024, 8, generator=generator)
    targets = (data @ torch.randn(8, 5, generator=generator)).argmax(1)
    torch.manual_seed(number)
    model = nn.Sequential(nn.Linear(8, width), nn.Tanh(), nn.Linear(width, 5))
    pace = dict(factor_every=2, inverse_every=4) if make is KFAC else {}
    opt = make(model, lr=lr, damping=damping, **pace)
    for step in range(12):
        rows = torch.arange(step * size, (step + 1) * size) % 1024
        logits = model(data[rows])
        loss = F.cross_entropy(logits, targets[rows])
        if opt.curvature_due:
            opt.update_curvature(loss=loss, logits=logits)
        loss.backward()
        opt.step()
        opt.zero_grad()
    return F.cross_entropy(model(data), targets).item(), (make.__name__, lr, damping, size, width)


def test_nothing_diverges_in_random_settings():
    """The trust region keeps the loss finite, and near what it was: 1.6 is chance."""
    for number in range(60):
        loss, settings = final_loss((KFAC, SPNGD, THOR)[number % 3], number)
        assert loss < 20, settings


@pytest.mark.slow
@pytest.mark.parametrize("make", [KFAC, SPNGD, THOR])
def test_nothing_diverges_in_two_hundred_random_settings(make):
    for number in range(200):
        loss, settings = final_loss(make, number)
        assert loss < 20, settings  # false for NaN too
