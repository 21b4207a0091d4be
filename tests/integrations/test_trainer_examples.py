"""Each example: the loss falls, a run resumes from its own checkpoint bit for bit, curvature comes when it is due."""

import importlib

import pytest

from hessiod.backends_torch.hook import unwrapped


def huggingface(name):
    def run(folder, steps, save_at=0, resume=False):
        saving = dict(save_strategy="steps", save_steps=save_at) if save_at else dict(save_strategy="no")
        settings = dict(per_device_train_batch_size=8, logging_steps=1, lr_scheduler_type="constant", **saving)
        trainer = importlib.import_module(name).build(folder, steps, **settings)
        trainer.train(resume_from_checkpoint=f"{folder}/checkpoint-{steps // 2}" if resume else None)
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        return losses, trainer.model, unwrapped(trainer.optimizer)

    return run


def lightning(folder, steps, save_at=0, resume=False):
    """Two epochs of 10; a resumed run goes on after one that ended with its first epoch."""
    from lightning.pytorch.callbacks import LambdaCallback

    example, losses = importlib.import_module("lightning_vit"), []

    def ended(trainer, module, outputs, batch, index):
        losses.append(outputs["loss"].item())

    def fit(epochs, **options):
        callbacks = [example.Curvature(), LambdaCallback(on_train_batch_end=ended)]
        settings = dict(callbacks=callbacks, enable_checkpointing=False, limit_train_batches=steps // 2)
        trainer = example.build(folder, epochs, **settings)
        return trainer, example.fit(trainer, **options)

    if resume:
        fit(1)[0].save_checkpoint(f"{folder}/half.ckpt")
    trainer, model = fit(2, resume=f"{folder}/half.ckpt" if resume else None)
    return losses, model, unwrapped(trainer.optimizers[0])


def loop(module, **options):
    def run(folder, steps, save_at=0, resume=False):
        train = importlib.import_module(module).train
        losses, model, opt = train(folder, steps, save_at=save_at, resume=resume, **options)
        return losses, model, unwrapped(opt)

    return run


EXAMPLES = {
    "huggingface": (huggingface("huggingface"), [1, 11]),
    "lora": (huggingface("lora"), [1, 11]),
    "lightning": (lightning, [1, 6, 11, 16]),
    "accelerate": (loop("accelerate_resnet"), [1, 1, 11, 11]),  # two micro-batches
    "plain": (loop("plain", backend="aot_eager"), [1, 1, 6, 6, 11, 11, 16, 16]),
    "detector-sophia-g": (loop("detector"), [1, 11]),
    "detector-sophia-h": (loop("detector", name="SophiaH"), [1, 11]),
    "detector-adahessian": (loop("detector", name="AdaHessian"), list(range(1, 20, 2))),
    "detector-sgd": (loop("detector", name="SGD"), []),
}


@pytest.mark.parametrize(("run", "due"), EXAMPLES.values(), ids=EXAMPLES)
def test_an_example(run, due, given, assert_same, tmp_path):
    losses, model, opt = run(str(tmp_path), 20, save_at=10)
    assert sum(losses[-4:]) < 0.97 * sum(losses[:4])
    assert given == due
    again, other, same = run(str(tmp_path), 20, resume=True)
    later = [step for step in due if step > 10]
    assert given[len(given) - len(later) :] == later
    assert again[-1] == losses[-1]
    assert_same((model, opt), (other, same))
