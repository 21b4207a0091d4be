"""Hugging Face's Trainer: what is estimated is right, overflow, refusals, logs."""

import importlib

import pytest
import torch
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import convert_outputs_to_fp32
from torch.amp import GradScaler
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

from hessiod.core import InvalidArgument, InvalidState
from hessiod.integrations.transformers import Curvature, refuse_settings
from hessiod.torch import KFAC, SPNGD, THOR, AdaHessian, SophiaG, SophiaH

SHAPE = dict(vocab_size=32, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
HUTCHINSON = {
    "sophia-h": lambda model: SophiaH(model.parameters(), lr=1e-2, every=3),
    "adahessian": lambda model: AdaHessian(model.parameters(), lr=1e-2, every=3),
}
GAUSS_NEWTON = {
    "sophia-g": lambda model: SophiaG(model.parameters(), lr=1e-2, every=3),
    "kfac": lambda model: KFAC(model, lr=1e-2, damping=0.1, factor_every=3, inverse_every=3),
    "kfac-empirical": lambda m: KFAC(m, lr=1e-2, damping=0.1, factor_every=3, inverse_every=3, fisher="empirical"),
    "spngd": lambda model: SPNGD(model, lr=1e-2, damping=0.1),
    "thor": lambda model: THOR(model, lr=1e-2, damping=0.1, factor_every=3),
}
MAKE = GAUSS_NEWTON | HUTCHINSON
each = pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)


class Ramps(Dataset):
    """Sequences that count, padded to different lengths, so that micro-batches have different numbers of targets."""

    def __len__(self):
        return 48

    def __getitem__(self, index):
        ids = (index + 3 * torch.arange(12)) % 32
        labels = ids.clone()
        labels[12 - 2 * (index % 5) :] = -100
        return {"input_ids": ids, "labels": labels}


def gpt():
    torch.manual_seed(0)
    # no cache, as under the Trainer: keys and values that go through one are added up in another order
    return GPT2LMHeadModel(GPT2Config(**SHAPE, use_cache=False, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0))


def build(folder, make, steps=4, callback=None, **settings):
    model = gpt()
    opt = make(model)
    given = dict(report_to="none", disable_tqdm=True, save_strategy="no", lr_scheduler_type="constant", max_grad_norm=0)
    given |= dict(per_device_train_batch_size=4)
    args = TrainingArguments(str(folder), max_steps=steps, use_cpu=True, **given | settings)
    trainer = Trainer(model, args, train_dataset=Ramps(), optimizers=(opt, None))
    trainer.add_callback(callback or Curvature())
    return trainer, model, opt


@pytest.mark.parametrize("parts", [1, 3])
@each
def test_it_is_a_plain_loop_over_the_same_batches_bit_for_bit(make, parts, tmp_path, assert_same):
    trainer, model, opt = build(tmp_path, make, gradient_accumulation_steps=parts)
    batches = []
    model.register_forward_pre_hook(lambda _, args, options: batches.append(options), with_kwargs=True)
    trainer.train()
    hutchinson = make in HUTCHINSON.values()
    if hutchinson:  # the estimate's own forwards come first
        batches = [batch for place, batch in enumerate(batches) if place == 0 or batch is not batches[place - 1]]
    other = gpt()
    same = make(other)
    seen = []
    for batch in batches:
        if not any(all(batch[k] is old[k] for k in batch) for old in seen):
            seen.append(batch)
    assert len(seen) == 4 * parts
    for number, batch in enumerate(seen):
        if same.curvature_due and hutchinson:
            same.update_curvature(closure=lambda batch=batch: other(**batch).loss, summed=True)
        output = other(**batch)
        if same.curvature_due and not hutchinson:
            same.update_curvature(loss=output.loss, logits=output.logits)
        output.loss.backward()
        if (number + 1) % parts == 0:
            same.step()
            same.zero_grad()
    assert_same((model, opt), (other, same))


@pytest.mark.parametrize(
    "settings",
    [
        dict(bf16=True),
        dict(gradient_checkpointing=True),
        dict(gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": True}),
        dict(torch_compile=True, torch_compile_backend="aot_eager"),
        dict(max_grad_norm=0.1),
        dict(label_smoothing_factor=0.1),
    ],
    ids=["bf16", "checkpointing", "reentrant", "compile", "clipping", "label-smoothing"],
)
def test_settings_that_people_train_with(settings, tmp_path, given):
    trainer, _, opt = build(tmp_path, MAKE["sophia-g"], steps=12, **settings)
    result = trainer.train()
    assert given == [1, 4, 7, 10]
    assert opt.steps == 12
    assert result.training_loss < 3.45  # log(32) = 3.47


@pytest.mark.parametrize("covered", [False, True], ids=["sophia-g", "kfac"])
def test_only_the_adapters_of_a_frozen_model_have_curvature(covered, tmp_path, given):
    """peft's real layers; their linear ones are K-FAC's, though what they adapt is GPT-2's own Conv1D."""

    def kfac(model):
        return KFAC(model, lr=0.1, damping=0.1, kl_clip=1e-2, factor_every=3)

    settings = dict(save_strategy="no", logging_strategy="no", per_device_train_batch_size=4)
    trainer = importlib.import_module("lora").build(str(tmp_path), 4, make=kfac if covered else None, **settings)
    model = trainer.model
    frozen = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    opt = trainer.optimizer
    trainer.train()
    assert given == ([1, 4] if covered else [1])
    for name, param in model.named_parameters():
        if name in frozen:
            assert torch.equal(param, frozen[name])
            assert not opt.state.get(param)
        else:
            assert "lora" in name
            assert opt.state[param]
    if covered:
        assert {layer.name.split(".")[-2] for layer in opt.layers} == {"lora_A", "lora_B"}


class Overflow(TrainerCallback):
    """Put infinity into a gradient at some steps, and remember the state on both sides of them."""

    def __init__(self, at):
        self.at, self.tried, self.seen = at, 0, []

    def on_pre_optimizer_step(self, args, state, control, **found):
        weight = found["model"].transformer.h[0].ln_1.weight
        self.tried += 1
        if self.tried in self.at:
            weight.grad[0] = float("inf")
            self.before = [param.detach().clone() for param in found["model"].parameters()]

    def on_optimizer_step(self, args, state, control, **found):
        opt, model = found["optimizer"], found["model"]
        if self.tried in self.at:
            assert opt.step_was_skipped
            assert all(torch.equal(a, b) for a, b in zip(self.before, model.parameters(), strict=True))
        self.seen.append((opt.optimizer.steps, opt.optimizer.curvature_due, opt.step_was_skipped))


class Scaled(Trainer):
    """Accelerate leaves float16 out on the CPU: this one is given the scaler and the autocast that it would make."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.accelerator.scaler = GradScaler("cpu", init_scale=1024.0, growth_interval=10**6)
        forward = torch.autocast("cpu", torch.float16)(self.model.forward)
        self.model.forward = convert_outputs_to_fp32(forward)


@pytest.mark.parametrize("clip", [0, 0.5])
@each
def test_a_step_that_overflows_is_skipped_together_with_its_curvature(make, clip, tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.Trainer", Scaled)
    callback = Curvature()
    trainer, model, opt = build(tmp_path, make, steps=6, callback=callback, max_grad_norm=clip)
    overflow = Overflow(at=(1, 5))
    trainer.add_callback(overflow)
    trainer.train()
    assert isinstance(trainer.optimizer, AcceleratedOptimizer)
    assert trainer.accelerator.scaler.get_scale() == 256.0
    assert [steps for steps, _, _ in overflow.seen] == [0, 1, 2, 3, 3, 4]
    assert [skipped for *_, skipped in overflow.seen] == [True, False, False, False, True, False]
    assert overflow.seen[0][1]
    assert overflow.seen[4][1]
    assert trainer.lr_scheduler.last_epoch == 4  # the schedule waits for skipped steps
    for param in model.parameters():
        values = [value for value in opt.state[param].values() if isinstance(value, torch.Tensor)]
        assert all(torch.isfinite(value).all() for value in [param, *values])
    assert callback.hook is None
    assert opt._step_supports_amp_scaling


def test_float16_on_the_cpu_is_left_out_by_accelerate_itself(tmp_path):
    """So that the scaler above had to be put in by hand; when this fails, take Accelerate's own."""
    trainer, _, _ = build(tmp_path, MAKE["sophia-g"], fp16=True)
    assert trainer.accelerator.mixed_precision == "fp16"
    assert trainer.accelerator.scaler is None


def test_diagnostics_are_in_the_trainers_own_log_and_its_losses_too(tmp_path):
    trainer, _, opt = build(tmp_path, MAKE["sophia-g"], steps=4, logging_steps=2)
    callback = next(found for found in trainer.callback_handler.callbacks if isinstance(found, Curvature))
    callback.log = trainer.log
    trainer.train()
    history = trainer.state.log_history
    assert [entry["step"] for entry in history if "loss" in entry] == [2, 4]
    entries = [entry for entry in history if "hessiod/clip_fraction" in entry]
    assert [(entry["step"], entry["hessiod/refreshes"]) for entry in entries] == [(2, 1), (4, 2)]
    assert entries[-1]["hessiod/clip_fraction"] == opt.clip_fraction()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"deepspeed": "zero.json"},
            r"deepspeed: found 'zero.json', expected none; it replaces the optimizer; .*torchrun",
        ),
        ({"fsdp": ["full_shard"]}, r"fsdp: found \['full_shard'\], expected none; .*DistributedDataParallel"),
        ({"n_gpu": 2}, "n_gpu: found 2, which trains through nn.DataParallel.*; start the script with torchrun"),
    ],
    ids=["deepspeed", "fsdp", "data-parallel"],
)
def test_settings_that_are_refused(settings, message):
    class Arguments:
        def __init__(self):
            self.n_gpu = 0
            vars(self).update(settings)

    with pytest.raises(InvalidArgument, match=message):
        refuse_settings(Arguments())


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (
            MAKE["sophia-h"],
            dict(label_smoothing_factor=0.1),
            "needs the loss, and the output of GPT2LMHeadModel holds none",
        ),
        (
            MAKE["sophia-h"],
            dict(gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": True}),
            "found reentrant checkpointing in",
        ),
        (
            MAKE["kfac"],
            dict(gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": True}),
            "found KFAC with reentrant checkpointing in GPT2LMHeadModel",
        ),
        (MAKE["kfac"], dict(torch_compile=True, torch_compile_backend="aot_eager"), "found KFAC with a compiled"),
    ],
    ids=["label-smoothing", "sophia-h-reentrant", "kfac-reentrant", "kfac-compile"],
)
def test_what_an_optimizer_cannot_do_is_refused_before_the_first_step(make, settings, message, tmp_path):
    trainer, _, opt = build(tmp_path, make, **settings)
    with pytest.raises(InvalidState, match=message):
        trainer.train()
    assert opt.steps == 0


def test_without_a_fresh_hook_a_second_training_goes_on(tmp_path, given):
    trainer, model, _ = build(tmp_path, MAKE["sophia-g"], steps=2)
    trainer.train()
    assert not model._forward_hooks
    trainer.train()
    assert given == [1, 4]  # the optimizer counts on: steps 1 to 4
