"""Callbacks for ``ms.train.Model`` with a TrainStep: diagnostics to a logger, checkpoints that go on bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn
from mindspore.train import Callback, RunContext

from hessiod.backends.logs import PREFIX, Log, check_every
from hessiod.backends_mindspore import checkpoint, native
from hessiod.backends_mindspore.holder import put
from hessiod.backends_mindspore.logs import scalars
from hessiod.backends_mindspore.train_step import TrainStep
from hessiod.core.errors import InvalidArgument, InvalidState


class OfTrainStep(Callback):
    """A callback of a ``Model(TrainStep(...))``.

    It shows the step's optimizer to the callbacks behind it, ``LearningRateScheduler`` for one: Model knows of none.
    """

    def on_train_begin(self, run_context: RunContext) -> None:
        """Refuse another network than a TrainStep."""
        run = run_context.original_args()
        if not isinstance(run.train_network, TrainStep):
            raise InvalidArgument(
                f"Model: found the network {type(run.train_network).__name__}, expected a hessiod.mindspore.TrainStep; "
                "construct Model(TrainStep(net, loss_fn, optimizer)) without loss_fn and optimizer of its own"
            )
        run.optimizer = run.optimizer or run.train_network.optimizer


class Diagnostics(OfTrainStep):
    """Calls ``log`` with a dictionary of numbers after every ``every``-th step of the optimizer.

    The numbers are those of :func:`~hessiod.backends_mindspore.logs.scalars`, ``hessiod/loss``, and
    ``hessiod/loss_scale`` where it moves.

    Args:
        log: a function of a dictionary of numbers: ``wandb.log``, ``print``,
            :class:`~hessiod.backends.logs.TensorBoard`.
        every: steps between two entries. One reads the whole state, on the host.

    model.train(3, data, callbacks=[Diagnostics(TensorBoard(SummaryWriter("runs/one")), every=100)])
    """

    def __init__(self, log: Log, every: int = 50) -> None:
        super().__init__()
        check_every(every)
        self.log, self.every, self.logged = log, every, 0

    def on_train_begin(self, run_context: RunContext) -> None:
        """Begin where the optimizer is."""
        super().on_train_begin(run_context)
        self.logged = run_context.original_args().train_network.optimizer.steps

    def on_train_step_end(self, run_context: RunContext) -> None:
        """Log, if this was a whole step, taken, and one of those asked for."""
        run = run_context.original_args()
        step = run.train_network
        steps = step.optimizer.steps
        if steps == self.logged or steps % self.every:
            return
        self.logged = steps
        values = scalars(step.optimizer) | {f"{PREFIX}loss": float(run.net_outputs.asnumpy())}
        if step.loss_scale.dynamic:
            values[f"{PREFIX}loss_scale"] = float(step.loss_scale.current().asnumpy())
        self.log(values)


@dataclass(frozen=True)
class Position:
    """Where a run is: whole epochs done, and batches of the next one."""

    epoch: int = 0
    batch: int = 0


class Run(nn.Cell):
    """A TrainStep and the position, as MindSpore's own files hold them."""

    def __init__(self, step: TrainStep) -> None:
        super().__init__(auto_prefix=False)
        self.step = step
        self.place = Parameter(Tensor(np.zeros(2, np.int64)), name="epoch_and_batch", requires_grad=False)


class Checkpoint(OfTrainStep):
    """Writes a file at the end of each epoch, and goes on from it bit for bit.

    The file holds net, optimizer, dynamic loss scale and position. It is written atomically, over the last one.

    Args:
        path: ends in ".safetensors" for a file of :mod:`hessiod.checkpoint`, which torch can take up too, or in ".ckpt"
            for one of MindSpore's own.
        step: the TrainStep.
        every: also after every so many steps of the optimizer.

        save = Checkpoint("run.safetensors", step)
        model.train(10, data, callbacks=[save], initial_epoch=save.resume().epoch)

    A file from within an epoch resumes at the position's ``batch``: train ``data.skip(batch)`` up to the end of that
    epoch first, with the same callback. The order of the data is the caller's: MindSpore's shuffles begin anew.
    """

    def __init__(self, path: str | Path, step: TrainStep, every: int | None = None) -> None:
        super().__init__()
        self.path, self.step, self.every = Path(path), step, every
        if every is not None:
            check_every(every)
        if self.path.suffix not in (".safetensors", ".ckpt"):
            raise InvalidArgument(f"path: found {str(path)!r}, expected a name that ends in .safetensors or .ckpt")
        if self.path.suffix == ".safetensors":
            checkpoint.bridge(step.loss.net, step.optimizer)  # refuses what such a file cannot hold
        self.run = Run(step)
        self.position, self.saved = Position(), step.optimizer.steps

    def on_train_begin(self, run_context: RunContext) -> None:
        """Refuse an epoch that ends within a step."""
        super().on_train_begin(run_context)
        run = run_context.original_args()
        if run.train_network is not self.step:
            raise InvalidArgument("step: found another TrainStep than the Model's; construct Checkpoint with that one")
        if (self.position.batch + run.batch_num) % self.step.accumulation:
            raise InvalidArgument(
                f"accumulation: found {self.step.accumulation} with epochs of {run.batch_num} batches, expected a "
                "divisor: a file cannot hold half a step; batch the data with drop_remainder, or take(...) of it"
            )

    def on_train_step_end(self, run_context: RunContext) -> None:
        """Count the batch; write, if it is time."""
        self.position = Position(self.position.epoch, self.position.batch + 1)
        steps = self.step.optimizer.steps
        whole = not self.position.batch % self.step.accumulation
        if self.every and whole and steps != self.saved and not steps % self.every:
            self.write()

    def on_train_epoch_end(self, run_context: RunContext) -> None:
        """Write."""
        self.position = Position(run_context.original_args().cur_epoch_num)
        self.write()

    def write(self) -> None:
        """Write the file now, between two steps."""
        self.saved = self.step.optimizer.steps
        if int(self.step.micro.asnumpy()):
            raise InvalidState("checkpoint: found a step begun, expected none; write after its last micro-batch")
        if self.path.suffix == ".ckpt":
            put(self.run.place, np.array([self.position.epoch, self.position.batch]))
            native.write(self.path, self.run, None)
        else:
            extra = {"epoch": self.position.epoch, "batch": self.position.batch, "counts": counts(self.step)}
            checkpoint.save(self.path, self.step.loss.net, self.step.optimizer, extra)

    def resume(self) -> Position:
        """Take up the file, if there is one; where it was written. Nothing is changed if it does not fit."""
        if self.path.exists():
            if self.path.suffix == ".ckpt":
                native.restore(self.path, self.run, None)
                self.position = Position(*map(int, self.run.place.asnumpy()))
            else:
                extra = checkpoint.load(self.path, self.step.loss.net, self.step.optimizer).extra or {}
                put_counts(self.step, extra.get("counts", {}))
                self.position = Position(extra.get("epoch", 0), extra.get("batch", 0))
            self.saved = self.step.optimizer.steps
        return self.position


def counters(step: TrainStep) -> dict[str, Parameter]:
    """The dynamic loss scale with its counters, and the number of refused steps, by their names without prefixes."""
    found = [step.optimizer.refused, *step.loss_scale.parameters()]
    return {param.name.rpartition(".")[2]: param for param in found}


def counts(step: TrainStep) -> dict[str, float]:
    """What :func:`counters` hold, as numbers, which JSON keeps exactly."""
    return {name: float(param.asnumpy()) for name, param in counters(step).items()}


def put_counts(step: TrainStep, values: dict[str, float]) -> None:
    """Put numbers of :func:`counts` back."""
    for name, param in counters(step).items():
        if name in values:
            put(param, np.array(values[name], ms.dtype_to_nptype(param.dtype)))
