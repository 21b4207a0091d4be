"""Lightning's automatic optimization: the same bits as a plain loop, overflow, accumulation, refusals, logs."""

import logging

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import MixedPrecision
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from hessiod.core import InvalidArgument, InvalidState
from hessiod.integrations.lightning import Curvature, refuse_settings
from hessiod.torch import KFAC, AdaHessian, DiagonalNewton, SophiaG, SophiaH

MAKE = {
    "sophia-g": lambda model: SophiaG(model.parameters(), lr=1e-2, every=3),
    "kfac": lambda model: KFAC(model, lr=0.1, damping=0.1, factor_every=3, inverse_every=3),
    "kfac-empirical": lambda m: KFAC(m, lr=0.1, damping=0.1, factor_every=3, inverse_every=3, fisher="empirical"),
    "sophia-h": lambda model: SophiaH(model.parameters(), lr=1e-2, every=3),
    "adahessian": lambda model: AdaHessian(model.parameters(), lr=1e-2, every=3),
    "diagonal-newton": lambda model: DiagonalNewton(model.parameters(), lr=1e-2, damping=0.1, every=3),
}
each = pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)


@pytest.fixture(scope="module", autouse=True)
def _quiet():
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(before)


def data():
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(96, 5, generator=generator), torch.randint(3, (96,), generator=generator))


class Module(LightningModule):
    def __init__(self, make):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(torch.nn.Linear(5, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
        self.make, self.direct = make, False

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, index):
        x, y = batch
        return F.cross_entropy(self.net(x) if self.direct else self(x), y)

    def configure_optimizers(self):
        return self.make(self.net)


def fit(folder, make, callbacks=(), steps=6, direct=False, batches=None, **settings):
    quiet = dict(enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, logger=False)
    module = Module(make)
    module.direct = direct
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        max_steps=steps,
        callbacks=list(callbacks) or [Curvature()],
        **quiet | settings,
    )
    trainer.fit(module, batches or DataLoader(data(), batch_size=8))
    return module.net, trainer.optimizers[0], trainer


def plain(make, steps=6, parts=1, clip=0.0, skipped=()):
    net = Module(make).net
    opt = make(net)
    batches = iter(DataLoader(data(), batch_size=8))
    for step in range(steps):
        for _ in range(parts):
            x, y = next(batches)
            logits = net(x)
            loss = F.cross_entropy(logits, y)
            if opt.curvature_due:
                opt.update_curvature(loss=loss, logits=logits)
            (loss / parts).backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(net.parameters(), clip)
        if step in skipped:
            opt._settled()
        else:
            opt.step()
        opt.zero_grad()
    return net, opt


@pytest.mark.parametrize("parts", [1, 2])
@each
def test_it_is_a_plain_loop_bit_for_bit(make, parts, tmp_path, assert_same):
    net, opt, _ = fit(tmp_path, make, accumulate_grad_batches=parts)
    assert_same((net, opt), plain(make, parts=parts))


class Overflow(Callback):
    def __init__(self, at):
        self.at, self.tried, self.seen = at, 0, []

    def on_after_backward(self, trainer, module):
        self.tried += 1
        if self.tried in self.at:
            module.net[0].weight.grad[0, 0] = float("inf")

    def on_train_batch_end(self, trainer, module, *_):
        opt = trainer.optimizers[0]
        self.seen.append((opt.steps, opt.curvature_due))


@pytest.mark.parametrize("clip", [None, 0.5])
@each
def test_a_step_that_overflows_is_skipped_together_with_its_curvature(make, clip, tmp_path):
    """Lightning turns precision="16-mixed" into bfloat16 on the CPU, but takes its own plugin with a CPU scaler."""
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=10**6))
    overflow = Overflow(at=(1, 5))
    settings = dict(plugins=[plugin], gradient_clip_val=clip)
    net, opt, _ = fit(tmp_path, make, [Curvature(), overflow], **settings)
    assert plugin.scaler.get_scale() == 256.0
    assert [steps for steps, _ in overflow.seen] == [0, 1, 2, 3, 3, 4]
    assert overflow.seen[0][1]
    assert overflow.seen[4][1]
    for param in net.parameters():
        values = [value for value in opt.state[param].values() if isinstance(value, torch.Tensor)]
        assert all(torch.isfinite(value).all() for value in [param, *values])
    assert opt._step_supports_amp_scaling  # as it was


@each
def test_a_scale_without_rounding_changes_nothing(make, tmp_path, assert_same):
    """Under a float32 "autocast" the scaler alone is left: a power of two, skipped steps and clipping included."""

    class Scaled(MixedPrecision):
        def autocast_context_manager(self):
            return torch.autocast("cpu", enabled=False)

    plugin = Scaled("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=10**6))
    settings = dict(plugins=[plugin], gradient_clip_val=0.5)
    net, opt, _ = fit(tmp_path, make, [Curvature(), Overflow(at=(4,))], **settings)
    assert_same((net, opt), plain(make, clip=0.5, skipped=[3]))


def test_bfloat16_and_a_submodule_by_name(tmp_path, given):
    _, opt, _ = fit(tmp_path, MAKE["sophia-g"], [Curvature("net")], direct=True, precision="bf16-mixed")
    assert given == [1, 4]
    assert opt.steps == 6


def test_a_closure_of_module_and_batch(tmp_path, given):
    def loss(module, batch):
        return F.cross_entropy(module(batch[0]), batch[1])

    callback = Curvature(closure=loss)
    net, _, _ = fit(tmp_path, MAKE["sophia-h"], [callback], accumulate_grad_batches=2)
    assert given == [1, 1, 4, 4]
    other, _ = plain(MAKE["sophia-h"], parts=2)
    for a, b in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_diagnostics_reach_the_loggers(tmp_path):
    logger = CSVLogger(tmp_path, flush_logs_every_n_steps=1)
    _, opt, trainer = fit(tmp_path, MAKE["sophia-g"], logger=logger, log_every_n_steps=2)
    assert trainer.logged_metrics["hessiod/refreshes"] == 2
    rows = (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text().splitlines()
    assert "hessiod/clip_fraction" in rows[0]
    assert len(rows) == 1 + 3  # steps 2, 4 and 6
    assert trainer.logged_metrics["hessiod/clip_fraction"].item() == pytest.approx(opt.clip_fraction())


def test_a_module_that_training_step_goes_round(tmp_path):
    with pytest.raises(InvalidState, match="due at step 1: the hook on Module saw no training forward that led to a"):
        fit(tmp_path, MAKE["sophia-g"], direct=True)


def test_settings_that_are_refused(tmp_path):
    module = Module(MAKE["sophia-g"])
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    one = MAKE["sophia-g"](module.net)
    trainer.strategy.optimizers = [one, one]
    with pytest.raises(InvalidArgument, match="configure_optimizers: found 2 optimizers, expected one"):
        refuse_settings(trainer, module)
    trainer.strategy.optimizers = [one]

    class DeepSpeedStrategy(type(trainer.strategy)):
        pass

    trainer.strategy.__class__ = DeepSpeedStrategy
    with pytest.raises(InvalidArgument, match=r"strategy: found DeepSpeedStrategy, .*; use strategy='ddp'"):
        refuse_settings(trainer, module)
    module.automatic_optimization = False
    with pytest.raises(InvalidArgument, match=r"automatic_optimization: found False, expected True; .*CurvatureHook"):
        refuse_settings(trainer, module)


def test_an_error_in_training_leaves_no_hooks(tmp_path):
    class Fails(Callback):
        def on_after_backward(self, trainer, module):
            self.module = module
            raise RuntimeError("stop")

    fails = Fails()
    with pytest.raises(RuntimeError, match="stop"):
        fit(tmp_path, MAKE["sophia-g"], [Curvature(), fails])
    assert not fails.module._forward_hooks
