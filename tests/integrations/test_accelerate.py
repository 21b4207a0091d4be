"""Accelerate: the same bits as a plain loop, its GradScaler and skipped steps, refusals."""

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from hessiod.core import InvalidArgument
from hessiod.integrations.accelerate import Curvature
from hessiod.torch import KFAC, SophiaG, SophiaH, log_diagnostics

MAKE = {
    "sophia-g": lambda model: SophiaG(model.parameters(), lr=1e-2, every=3),
    "kfac": lambda model: KFAC(model, lr=0.1, damping=0.1, factor_every=3, inverse_every=3),
    "kfac-empirical": lambda m: KFAC(m, lr=0.1, damping=0.1, factor_every=3, inverse_every=3, fisher="empirical"),
    "sophia-h": lambda model: SophiaH(model.parameters(), lr=1e-2, every=3),
}
each = pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)


@pytest.fixture(autouse=True)
def _fresh():
    """Accelerate's state is one for the whole process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = torch.nn.Sequential(torch.nn.Linear(5, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))

    def forward(self, x, y):
        logits = self.body(x)
        return {
            "loss": F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), y),
            "logits": logits,
        }


def loader(rows=8, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(96, 5, generator=generator), torch.randint(3, (96,), generator=generator)
    return DataLoader(TensorDataset(x.to(dtype), y), batch_size=rows)


def run(make, steps=4, parts=1, scale=None, spoil=(), mixed=None, log=None, rows=8, handlers=()):
    """A loop of Accelerate's; its own scaler exists on accelerators only, so a CPU one is put in its place."""
    accelerator = Accelerator(
        gradient_accumulation_steps=parts, mixed_precision=mixed, cpu=True, kwargs_handlers=list(handlers)
    )
    if scale:
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=10**6)
    model = Net()
    raw = make(model)
    batches = loader(rows, model.body[0].weight.dtype)
    model, opt, batches = accelerator.prepare(model, raw, batches)
    schedule = accelerator.prepare(torch.optim.lr_scheduler.ConstantLR(raw, 1.0))
    hook = Curvature(accelerator, model, opt)
    if log is not None:
        log_diagnostics(opt, log, every=2)
    tried, seen = 0, []
    for x, y in batches:
        with accelerator.accumulate(model):
            accelerator.backward(model(x, y)["loss"])
            if accelerator.sync_gradients:
                tried += 1
                if tried in spoil:
                    model.body[0].weight.grad[0, 0] = float("inf")
                if scale:  # as clip_grad_norm_ does on accelerators
                    accelerator.scaler.unscale_(raw)
                accelerator.clip_grad_norm_(model.parameters(), 0.5)
            opt.step()
            schedule.step()
            opt.zero_grad()
        if accelerator.sync_gradients:
            seen.append((raw.steps, raw.curvature_due, accelerator.optimizer_step_was_skipped))
        if tried == steps:
            break
    hook.remove()
    assert "step" not in vars(opt)
    return model, raw, seen, schedule


def plain(make, steps=4, parts=1, skipped=()):
    model = Net()
    opt = make(model)
    batches = iter(loader())
    for step in range(1, steps + 1):
        for _ in range(parts):
            x, y = next(batches)
            if opt.curvature_due and make is MAKE["sophia-h"]:
                opt.update_curvature(closure=lambda x=x, y=y: model(x, y)["loss"])
            out = model(x, y)
            if opt.curvature_due and make is not MAKE["sophia-h"]:
                opt.update_curvature(loss=out["loss"], logits=out["logits"])
            (out["loss"] / parts).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        if step in skipped:
            opt._settled()
        else:
            opt.step()
        opt.zero_grad()
    return model, opt


@pytest.mark.parametrize("parts", [1, 2])
@each
def test_it_is_a_plain_loop_bit_for_bit(make, parts, assert_same):
    model, opt, *_ = run(make, parts=parts)
    assert_same((model, opt), plain(make, parts=parts))


@pytest.mark.parametrize("parts", [1, 2])
@each
def test_a_step_that_overflows_is_skipped_together_with_its_curvature(make, parts, assert_same):
    model, opt, seen, schedule = run(make, steps=6, parts=parts, scale=1024.0, spoil=(1, 5))
    assert [steps for steps, *_ in seen] == [0, 1, 2, 3, 3, 4]
    assert [skipped for *_, skipped in seen] == [True, False, False, False, True, False]
    assert seen[0][1]
    assert seen[4][1]
    assert schedule.scheduler.last_epoch == 4
    assert_same((model, opt), plain(make, steps=6, parts=parts, skipped=(1, 5)))


def test_bfloat16_casts_the_output_beside_the_path_from_logits_to_loss(given):
    """The model works out its loss in bfloat16; what it returns is cast to float32 afterwards."""
    model, opt, *_ = run(MAKE["sophia-g"], mixed="bf16")
    assert given == [1, 4]
    assert all(opt.state[param]["hessian"].abs().sum() > 0 for param in model.parameters())


def test_diagnostics_to_a_function():
    seen = []
    run(MAKE["sophia-g"], log=seen.append)
    assert [(entry["hessiod/step"], entry["hessiod/refreshes"]) for entry in seen] == [(2, 1), (4, 2)]


def test_an_optimizer_that_was_not_prepared_is_refused():
    model = Net()
    with pytest.raises(
        InvalidArgument, match=r"optimizer: found SophiaG, expected what accelerator.prepare\(optimizer"
    ):
        Curvature(Accelerator(cpu=True), model, SophiaG(model.parameters()))


def test_engines_that_keep_the_optimizer_are_refused(monkeypatch):
    from accelerate.utils import DistributedType

    accelerator, model = Accelerator(cpu=True), Net()
    opt = accelerator.prepare(SophiaG(model.parameters()))
    monkeypatch.setattr(type(accelerator), "distributed_type", DistributedType.DEEPSPEED)
    with pytest.raises(
        InvalidArgument, match=r"accelerator: found distributed_type DEEPSPEED, .*DistributedDataParallel"
    ):
        Curvature(accelerator, model, opt)
