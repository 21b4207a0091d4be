"""300 steps in each trainer, curvature at every third: neither tensors nor resident memory grow."""

import gc

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from hessiod.torch import KFAC, CurvatureHook, SophiaG, SophiaH

STEPS, WIDTH, ROWS = 300, 128, 256
MAKE = {
    "sophia-g": lambda model: SophiaG(model.parameters(), lr=1e-4, every=3),
    "sophia-h": lambda model: SophiaH(model.parameters(), lr=1e-4, every=3),
    "kfac": lambda model: KFAC(model, lr=1e-3, damping=0.1, factor_every=3, inverse_every=30),
}


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        layers = [torch.nn.Linear(8, WIDTH), torch.nn.Tanh(), torch.nn.Linear(WIDTH, WIDTH), torch.nn.Tanh()]
        self.body = torch.nn.Sequential(*layers, torch.nn.Linear(WIDTH, 4))

    def forward(self, x, labels):
        logits = self.body(x)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def data():
    return TensorDataset(torch.randn(ROWS, 8), torch.randint(4, (ROWS,)))


class Growth:
    """Tensors that are alive, and resident memory, at a fifth of the run and at its end."""

    def __init__(self, resident):
        self.resident, self.bytes, self.number = resident, {}, {}

    def watch(self, opt):
        opt.register_step_post_hook(lambda *_: self.look(opt.steps))
        return opt

    def look(self, step):
        if step in (STEPS // 5, STEPS):
            gc.collect()
            self.number[step] = sum(issubclass(type(found), torch.Tensor) for found in gc.get_objects())
            self.bytes[step] = self.resident()

    def tensors(self):
        return self.number[STEPS] - self.number[STEPS // 5]

    def mib(self):
        return (self.bytes[STEPS] - self.bytes[STEPS // 5]) / 2**20


def plain(make, growth, folder):
    model = Net()
    opt = growth.watch(make(model))
    x, y = data().tensors
    with CurvatureHook(model, opt):
        for _ in range(STEPS):
            model(x, y)["loss"].backward()
            opt.step()
            opt.zero_grad()


def accelerate(make, growth, folder):
    from accelerate import Accelerator

    from hessiod.integrations.accelerate import Curvature

    accelerator, model = Accelerator(cpu=True), Net()
    opt = growth.watch(make(model))
    model, opt, batches = accelerator.prepare(model, opt, DataLoader(data(), batch_size=ROWS))
    hook = Curvature(accelerator, model, opt)
    for _ in range(STEPS):
        for x, y in batches:
            accelerator.backward(model(x, y)["loss"])
            opt.step()
            opt.zero_grad()
    hook.remove()


def huggingface(make, growth, folder):
    from transformers import Trainer, TrainingArguments

    from hessiod.integrations.transformers import Curvature

    model, rows = Net(), [{"x": x, "labels": y} for x, y in data()]
    given = dict(report_to="none", disable_tqdm=True, save_strategy="no", logging_strategy="no")
    args = TrainingArguments(folder, max_steps=STEPS, per_device_train_batch_size=ROWS, use_cpu=True, **given)
    opt = growth.watch(make(model))
    Trainer(model, args, train_dataset=rows, optimizers=(opt, None), callbacks=[Curvature()]).train()


def lightning(make, growth, folder):
    from lightning.pytorch import LightningModule, Trainer

    from hessiod.integrations.lightning import Curvature

    class Module(LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def training_step(self, batch, index):
            return self.net(*batch)["loss"]

        def configure_optimizers(self):
            return growth.watch(make(self.net))

    quiet = dict(enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, logger=False)
    trainer = Trainer(accelerator="cpu", max_steps=STEPS, callbacks=[Curvature("net")], **quiet)
    trainer.fit(Module(), DataLoader(data(), batch_size=ROWS))


RUNS = {"plain": plain, "accelerate": accelerate, "huggingface": huggingface, "lightning": lightning}
SLOW = [(run, name) for run in RUNS for name in MAKE if name != "sophia-g"]


@pytest.mark.parametrize(
    ("run", "make"),
    [
        *((run, "sophia-g") for run in RUNS),
        *(pytest.param(run, make, marks=pytest.mark.slow) for run, make in SLOW),
    ],
)
def test_memory_is_flat_over_300_steps(resident, run, make, tmp_path):
    growth = Growth(resident)
    RUNS[run](MAKE[make], growth, str(tmp_path))
    assert growth.tensors() <= 2
    assert growth.mib() < 12  # the activations of 80 steps would be 20


def test_a_graph_that_is_kept_alive_would_be_seen(resident):
    """The same net and the same measure, with the mistake: a hook on the logits' node that holds the logits."""
    growth, model = Growth(resident), Net()
    opt = growth.watch(MAKE["sophia-g"](model))
    x, y = data().tensors
    for _ in range(STEPS):
        output = model(x, y)
        logits = output["logits"]
        if opt.curvature_due:
            logits.grad_fn.register_prehook(lambda grads, logits=logits: None)
            opt.update_curvature(loss=output["loss"], logits=logits)
        output["loss"].backward()
        opt.step()
        opt.zero_grad()
    assert growth.tensors() >= 80
