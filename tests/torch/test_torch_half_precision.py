"""float16 and bfloat16 parameters: state and arithmetic in float32, one rounding of the parameter per step."""

import copy
import io

import pytest
import torch
from torch.nn import functional as F

from hessiod.torch import SGD, AdaHessian, AdamW, Apollo, DiagonalNewton, SophiaG, SophiaH

KINDS = {
    "sophia-g": lambda params: SophiaG(params, lr=1e-2, every=3),
    "sophia-h": lambda params: SophiaH(params, lr=1e-2, every=3),
    "adahessian": lambda params: AdaHessian(params, lr=1e-2, every=3),
    "apollo": lambda params: Apollo(params, lr=1e-2, sigma=0.1, warmup=5),
    "diagonal-newton": lambda params: DiagonalNewton(params, lr=1e-2, damping=0.1, every=3),
    "adamw": lambda params: AdamW(params, lr=1e-2),
    "sgd": lambda params: SGD(params, lr=1e-2, momentum=0.9),
}
each_kind = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
each_half = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])


class Run:
    """A small network in any dtype; the batch is a function of the step."""

    def __init__(self, make, dtype):
        torch.manual_seed(0)
        self.dtype = dtype
        self.model = torch.nn.Sequential(torch.nn.Linear(5, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
        self.model.to(torch.bfloat16).to(dtype)  # the same weights in every dtype
        self.opt = make(self.model.parameters())

    def go(self, start, stop):
        for step in range(start, stop):
            self.forward(step).backward()
            self.opt.step()
            self.opt.zero_grad()
        return self

    def forward(self, step):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(16, 5, generator=generator)
        logits = self.model(x.to(self.dtype)).float()
        loss = F.cross_entropy(logits, (x[:, 0] > 0).long() + (x[:, 1] > 1).long())
        if getattr(self.opt, "curvature_due", False):
            self.opt.update_curvature(loss=loss, logits=logits)
        return loss

    def tensors(self):
        params = list(self.model.parameters())
        return params + [v for p in params for v in self.opt.state[p].values() if isinstance(v, torch.Tensor)]


def rounded_once(dtype):
    """Unit roundoff: how far one rounding to the nearest moves a number, relatively."""
    return torch.finfo(dtype).eps / 2


@each_half
@each_kind
def test_a_step_is_float32s_step_rounded_once(make, dtype):
    """From the same weights and gradients: the parameter differs by its one rounding, and the state by nothing."""
    half, wide = Run(make, dtype), Run(make, torch.float32)
    for step in range(10):
        half.forward(step).backward()
        curvature = half.opt._estimates() if getattr(half.opt, "curvature_due", False) else None
        for a, b in zip(half.model.parameters(), wide.model.parameters(), strict=True):
            b.data, b.grad = a.detach().float(), a.grad.float()
        if curvature is not None:
            given = dict(zip(wide.model.parameters(), curvature.values(), strict=True))
            assert all(estimate.dtype == torch.float32 for estimate in curvature.values())
            wide.opt._estimates = lambda given=given: given
        elif hasattr(wide.opt, "curvature_due"):
            wide.opt._estimates = lambda: None
        half.opt.step()
        wide.opt.step()
        half.opt.zero_grad()
        for a, b in zip(half.model.parameters(), wide.model.parameters(), strict=True):
            assert a.dtype == dtype
            assert torch.equal(a, b.to(dtype))
            for name, slot in half.opt.state[a].items():
                assert torch.equal(torch.as_tensor(slot), torch.as_tensor(wide.opt.state[b][name]))
                assert not isinstance(slot, torch.Tensor) or slot.dtype == torch.float32


@each_kind
def test_bfloat16_training_follows_float32_within_one_rounding_of_the_parameters_a_step(make):
    """Each step rounds each weight once; in this net the weights stay below 1 and what was lost is not amplified."""
    steps = 40
    half, wide = Run(make, torch.bfloat16).go(0, steps), Run(make, torch.float32).go(0, steps)
    start = Run(make, torch.float32)
    for a, b, c in zip(half.model.parameters(), wide.model.parameters(), start.model.parameters(), strict=True):
        allowed = steps * rounded_once(torch.bfloat16) * b.abs().amax()
        assert (a.float() - b).abs().max() < allowed
        assert (b - c).abs().max() > 0
    losses = [run.forward(999).item() for run in (half, wide, start)]
    assert losses[0] - losses[1] < 0.25 * (losses[2] - losses[1])


@each_half
@each_kind
def test_a_resumed_run_gives_the_same_bits_and_keeps_float32_slots(make, dtype):
    whole, first, file = Run(make, dtype).go(0, 20), Run(make, dtype).go(0, 8), io.BytesIO()
    torch.save([first.model.state_dict(), first.opt.state_dict()], file)
    file.seek(0)
    weights, state = torch.load(file)
    resumed = Run(make, dtype)
    resumed.model.load_state_dict(weights)
    kept = copy.deepcopy(state)
    resumed.opt.load_state_dict(state)
    resumed.go(8, 20)
    for a, b in zip(resumed.tensors(), whole.tensors(), strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    for number, slots in kept["state"].items():  # the loaded state was copied, not taken
        assert all(
            torch.equal(torch.as_tensor(v), torch.as_tensor(state["state"][number][k])) for k, v in slots.items()
        )


@each_half
def test_an_eps_that_vanishes_in_the_parameters_dtype_still_keeps_the_denominator_from_zero(dtype):
    for kind in (SophiaH, AdamW):
        theta = torch.nn.Parameter(torch.ones(2, dtype=dtype))
        opt = kind([theta], lr=0.5, weight_decay=0.0, eps=1e-12)
        if kind is SophiaH:
            opt.update_curvature(loss=theta.sum())
        theta.grad = torch.tensor([0.0, 1.0], dtype=dtype)
        opt.step()
        assert theta.tolist() == [1.0, 0.5]


@each_half
def test_gradients_of_micro_batches_add_up_in_float32(dtype):
    """256 + 1 is 256 in bfloat16, 2048 + 1 is 2048 in float16."""
    big = {torch.bfloat16: 256.0, torch.float16: 2048.0}[dtype]
    theta = torch.nn.Parameter(torch.ones(1, dtype=dtype))
    opt = SophiaH([theta], lr=0.0, betas=(0.0, 0.0))
    for slope in (big, 1.0, 1.0, 1.0):
        opt.update_curvature(loss=slope * theta.square().sum() / 2)
    theta.grad = torch.zeros_like(theta)
    opt.step()
    assert opt.state[theta]["hessian"].item() == (big + 3) / 4


@pytest.mark.parametrize("kind", [SophiaG, SophiaH, AdaHessian, DiagonalNewton])
def test_under_bfloat16_autocast_curvature_is_float32s_to_bfloat16s_precision(kind):
    def folded(autocast):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(5, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
        x, y = torch.randn(64, 5), torch.arange(64) % 3
        opt = kind(model.parameters())
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = model(x)
        assert logits.dtype == (torch.bfloat16 if autocast else torch.float32)
        opt.update_curvature(loss=F.cross_entropy(logits.float(), y), logits=logits)
        found = opt._estimates().values()
        assert all(estimate.dtype == torch.float32 for estimate in found)
        return torch.cat([estimate.flatten() for estimate in found])

    rounded, exact = folded(True), folded(False)
    assert not torch.equal(rounded, exact)
    assert (rounded - exact).norm() / exact.norm() < 8 * rounded_once(torch.bfloat16)
