"""torch.amp.GradScaler: curvature of scaled losses, steps that the scaler skips, errors in between."""

import copy

import pytest
import torch
from torch.amp import GradScaler
from torch.nn import functional as F

from hessiod.core import InvalidArgument, InvalidState
from hessiod.torch import SGD, AdaHessian, AdamW, Apollo, DiagonalNewton, SophiaG, SophiaH

SECOND = {
    "sophia-g": lambda params: SophiaG(params, lr=1e-2, every=3),
    "sophia-h": lambda params: SophiaH(params, lr=1e-2, every=3),
    "adahessian": lambda params: AdaHessian(params, lr=1e-2, every=3),
    "diagonal-newton": lambda params: DiagonalNewton(params, lr=1e-2, damping=0.1, every=3),
}
FIRST = {
    "apollo": lambda params: Apollo(params, lr=1e-2, sigma=0.1, warmup=5),
    "adamw": lambda params: AdamW(params, lr=1e-2),
    "sgd": lambda params: SGD(params, lr=1e-2, momentum=0.9),
}
KINDS = SECOND | FIRST
each_kind = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
each_second = pytest.mark.parametrize("make", SECOND.values(), ids=SECOND)


class Run:
    """A small network; with a scale, under a GradScaler, the curvature from the scaled loss or from the plain one."""

    def __init__(self, make, scale=None, given="scaled", autocast=False, clip=False, dtype=torch.float32):
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(torch.nn.Linear(5, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3)).to(dtype)
        self.opt = make(self.model.parameters())
        self.scaler = GradScaler("cpu", init_scale=scale or 1.0, growth_interval=10**6, enabled=scale is not None)
        self.given, self.autocast, self.clip, self.dtype = given, autocast, clip, dtype

    def losses(self, step):
        generator = torch.Generator().manual_seed(step)
        x, y = torch.randn(16, 5, generator=generator), torch.randint(3, (16,), generator=generator)
        with torch.autocast("cpu", torch.float16, enabled=self.autocast):
            logits = self.model(x.to(self.dtype))
        loss = F.cross_entropy(logits.float(), y)
        return loss, self.scaler.scale(loss), logits

    def curvature(self, loss, scaled, logits):
        if getattr(self.opt, "curvature_due", False):
            if self.given == "scaled":
                self.opt.update_curvature(loss=scaled, logits=logits, scale=self.scaler.get_scale())
            else:
                self.opt.update_curvature(loss=loss, logits=logits)

    def go(self, start, stop, spoil=()):
        for step in range(start, stop):
            loss, scaled, logits = self.losses(step)
            self.curvature(loss, scaled, logits)
            scaled.backward()
            if step in spoil:
                self.model[0].weight.grad[0, 0] = float("inf")
            if self.clip:
                self.scaler.unscale_(self.opt)
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), 0.5)
            self.scaler.step(self.opt)
            self.scaler.update()
            self.opt.zero_grad()
        return self

    def tensors(self):
        params = list(self.model.parameters())
        return params + [torch.as_tensor(v) for p in params for v in self.opt.state[p].values()]


def assert_equal(run, other):
    for a, b in zip(run.tensors(), other.tensors(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("given", ["scaled", "plain"])
@pytest.mark.parametrize("clip", [False, True], ids=["", "clipped"])
@each_kind
def test_a_scale_of_1024_equals_no_scaling_bit_for_bit(make, given, clip):
    """1024 is a power of two: in float32 scaling and unscaling round nothing, for gradients and for the Hessian."""
    assert_equal(Run(make, 1024.0, given, clip=clip).go(0, 12), Run(make, clip=clip).go(0, 12))


def test_without_the_scale_the_curvature_of_a_scaled_loss_is_1024_times_too_large():
    scaled, plain = (Run(SECOND["sophia-h"], scale) for scale in (1024.0, None))
    _, big, logits = scaled.losses(0)
    scaled.opt.update_curvature(loss=big, logits=logits)  # the mistake
    plain.curvature(*plain.losses(0))
    for a, b in zip(scaled.opt._estimates().values(), plain.opt._estimates().values(), strict=True):
        assert torch.equal(a, 1024 * b)


@pytest.mark.parametrize("make", [SECOND["sophia-g"], FIRST["adamw"], FIRST["sgd"]], ids=["sophia-g", "adamw", "sgd"])
def test_under_float16_autocast_it_equals_no_scaling_within_a_thousandth(make):
    scaled, plain = (Run(make, scale, autocast=True).go(0, 12) for scale in (1024.0, None))
    found, expected = (torch.cat([p.detach().flatten() for p in run.model.parameters()]) for run in (scaled, plain))
    assert (found - expected).norm() / expected.norm() < 1e-3


@each_second
def test_a_step_that_the_scaler_skips_drops_its_estimate_and_curvature_is_due_still(make):
    run = Run(make, 1024.0).go(0, 3)
    assert run.opt.curvature_due
    before = [tensor.clone() for tensor in run.tensors()]
    run.go(3, 4, spoil=[3])
    for a, b in zip(run.tensors(), before, strict=True):
        assert torch.equal(a, b)
    assert run.opt.steps == 3
    assert run.opt.curvature_due
    assert run.opt._pending is None
    assert run.scaler.get_scale() == 512.0
    other = Run(make).go(0, 3)  # one that never saw the spoilt batch
    assert_equal(run.go(4, 9), other.go(4, 9))


@each_kind
def test_a_skipped_step_after_unscaling_and_clipping(make):
    run = Run(make, 1024.0, clip=True).go(0, 9, spoil=[3, 5])
    other = Run(make, clip=True)
    for step in (0, 1, 2, 4, 6, 7, 8):
        other.go(step, step + 1)
    assert_equal(run, other)


@each_second
def test_a_step_that_raises_leaves_no_scale_behind(make):
    run = Run(make, 1024.0)
    loss, scaled, logits = run.losses(0)
    scaled.backward(retain_graph=True)
    kept = copy.deepcopy([p.grad for p in run.model.parameters()])
    with pytest.raises(InvalidState, match="curvature is due at step 1"):
        run.scaler.step(run.opt)
    assert not {"grad_scale", "found_inf"} & set(vars(run.opt))
    for param, grad in zip(run.model.parameters(), kept, strict=True):
        assert torch.equal(param.grad, grad)
    run.curvature(loss, scaled, logits)
    run.scaler.step(run.opt)
    run.scaler.update()
    assert_equal(run, Run(make).go(0, 1))


def test_float16_parameters_are_unscaled_in_float32():
    """2^-30 is no float16 number; times 1024 it is."""
    theta = torch.nn.Parameter(torch.zeros(1, dtype=torch.float16))
    opt = SophiaH([theta], lr=0.0, betas=(0.0, 0.0))
    scaler = GradScaler("cpu", init_scale=1024.0)
    loss = theta.float().sum() * 2.0**-30
    opt.update_curvature(loss=scaler.scale(loss), scale=scaler.get_scale())
    scaler.scale(loss).backward()
    scaler.step(opt)
    assert opt.state[theta]["exp_avg"].item() == 2.0**-30


@pytest.mark.parametrize("scale", [0, -2.0, float("nan"), float("inf"), None, True])
def test_a_scale_that_no_loss_can_have(scale):
    theta = torch.nn.Parameter(torch.ones(1))
    opt = SophiaH([theta])
    with pytest.raises(InvalidArgument, match=r"scale: found .*, expected a number > 0; give what the loss was multip"):
        opt.update_curvature(loss=theta.sum(), scale=scale)
    assert opt._pending is None


def test_micro_batches_divided_by_their_number_take_its_inverse_as_scale():
    theta = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    opt = SophiaH([theta], lr=0.0, betas=(0.0, 0.0))
    for slope in (1.0, 2.0, 3.0, 6.0):
        opt.update_curvature(loss=slope * theta.square().sum() / 2 / 4, scale=1 / 4)
    theta.grad = torch.zeros(2)
    opt.step()
    assert opt.state[theta]["hessian"].tolist() == [3.0, 3.0]
