"""A step on the host: compiled kernels write through the parameters' own memory, on the CPU.

MindSpore's graphs see what is written there (a compiled graph reads a parameter's memory at every run), and its CPU
kernels run one by one, each over whole arrays. So a step that starts on the host, ``TrainStep``'s for one, leaves the
graph after the gradients: the scalars come out of a small graph, the arrays are moved by one call. Inside somebody
else's graph the step stays in that graph. Both give the same bits, but for sums and powers, for second derivatives,
which round otherwise in another graph, and for denormal numbers, which graphs flush to zero.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor
from mindspore.common.api import _pynative_executor

from hessiod.backends import kernels
from hessiod.backends.numpy import run
from hessiod.core.rule import Kernel, Rule
from hessiod.core.trace import GRAD_SCALE

DTYPES = {ms.float32: "float32", ms.float64: "float64", ms.bfloat16: "bfloat16", ms.float16: "float16"}


class HostStep:
    """The step of an optimizer's rule through compiled kernels."""

    def __init__(self, rule: Rule, dtypes: Sequence[Any]) -> None:
        self.steps: tuple[Kernel, ...] = (rule.step,)
        self.refreshed_steps = self.steps if rule.refresh is None else (rule.refresh, rule.step)
        self.dtypes = [DTYPES[dtype] for dtype in dtypes]

    def usable(self) -> bool:
        """Whether steps can run here: parameters in this process's memory, and kernels that compile."""
        if ms.get_context("device_target") != "CPU" or not kernels.available():
            return False
        return all(kernels.sweep_for(self.steps, dtype, dtype, dtype) is not None for dtype in set(self.dtypes))

    def take(
        self,
        optimizer: Any,
        gradients: Sequence[Tensor],
        estimates: Sequence[Tensor] | None = None,
        factor: float | None = None,
        marked: bool = False,
    ) -> None:
        """What ``guarded_step`` does in a graph.

        ``factor`` is what gradients are multiplied by, one over the optimizer's loss scale if it is None. ``marked``
        says that the graph has marked in ``optimizer.finite`` what it found not to be finite.
        """
        sizes = [parameter.size for parameter in optimizer.parameters]
        inputs = [Arrays(tensors, sizes) for tensors in ((gradients,) if estimates is None else (gradients, estimates))]
        _pynative_executor.sync()  # whatever still reads the parameters
        threads = thread_count()
        finite = optimizer.finite.asnumpy()
        if not marked:
            finite[...] = True
        for arrays in inputs:
            finite[...] &= arrays.finite(threads)
        if not finite.all():
            optimizer.refused.asnumpy()[...] += 1
            return
        if estimates is not None:
            optimizer.refreshes.asnumpy()[...] += 1
        self._move(optimizer, inputs, 1.0 / optimizer.loss_scale if factor is None else factor, threads)
        optimizer.global_step.asnumpy()[...] += 1

    def measure(self, optimizer: Any) -> np.ndarray:
        """What ``optimizer.measure`` finds in a graph, by numpy over the slots' own memory."""
        (kernel,) = optimizer.rule.measures.values()
        scalars = [kernel.scalars_from(values) for values in values_now(optimizer)]
        slots = zip(*[getattr(optimizer, name) for name in kernel.operands], strict=True)
        found = [
            run(kernel.function, [slot.asnumpy() for slot in arrays], scalars[group])[0]
            for arrays, group in zip(slots, optimizer.group_of, strict=True)
        ]
        return np.array(found, np.float64)

    def _move(self, optimizer: Any, inputs: Sequence[Arrays], factor: float, threads: int) -> None:
        program = self.steps if len(inputs) == 1 else self.refreshed_steps
        rows = scalar_rows(optimizer, program, factor)
        keys = list(zip(self.dtypes, *[arrays.dtypes for arrays in inputs], strict=True))
        for key in dict.fromkeys(keys):
            sweep = kernels.sweep_for(program, key[0], key[1], key[-1])
            assert sweep is not None
            places = [place for place, other in enumerate(keys) if other == key]
            owned = [optimizer.parameters, *[getattr(optimizer, name) for name in sweep.program.slots]]
            columns = [*map(addresses, owned), *[arrays.addresses for arrays in inputs]]
            pointers = array("q", bytes(8 * len(columns) * len(places)))
            for number, column in enumerate(columns):
                pointers[number :: len(columns)] = array("q", [column[place] for place in places])
            groups = [optimizer.group_of[place] for place in places]
            sweep.run([inputs[0].sizes[place] for place in places], pointers, groups, rows, threads)


class Arrays:
    """Gradients or estimates of all parameters, of these sizes, and what kernels have to know of them."""

    def __init__(self, tensors: Sequence[Tensor], sizes: Sequence[int]) -> None:
        self.tensors = [tensor if tensor.is_contiguous() else tensor.contiguous() for tensor in tensors]
        self.sizes = sizes
        self.dtypes = [DTYPES[tensor.dtype] for tensor in self.tensors]

    @cached_property
    def addresses(self) -> array[int]:
        """Where the first entry of each lies; to be asked for when they are written."""
        return addresses(self.tensors)

    def finite(self, threads: int) -> list[bool]:
        """For each tensor, whether all its entries are finite."""
        if kernels.first_nonfinite(self.sizes, self.addresses, self.dtypes, threads) is None:
            return [True] * len(self.tensors)
        looks = zip(self.sizes, self.addresses, self.dtypes, strict=True)
        return [kernels.first_nonfinite([size], [at], [dtype], 1) is None for size, at, dtype in looks]


def addresses(tensors: Sequence[Tensor]) -> array[int]:
    """Where the first entry of each lies."""
    return array("q", [tensor.data_ptr() for tensor in tensors])


def thread_count() -> int:
    """Threads of a kernel: ``OMP_NUM_THREADS``, or MindSpore's number, which may be more than there are processors."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    count = int(wanted) if wanted.isdecimal() and int(wanted) else ms.get_context("runtime_num_threads") or 1
    return max(1, min(count, os.cpu_count() or 1))


def values_now(optimizer: Any) -> list[dict[str, float]]:
    """Every hyperparameter of each group as ``group_values`` has it in a graph, in Python's doubles."""
    pairs = zip(optimizer.hyperparameter_names, optimizer.hyperparameter_values, strict=True)
    shared = {name: float(value.asnumpy()) for name, value in pairs} | {"step": optimizer.steps + 1}
    if optimizer.second_order:
        shared["refreshes"] = int(optimizer.refreshes.asnumpy())
    rates = optimizer.all_rates().asnumpy().reshape(-1, 2).tolist()
    return [shared | {"lr": lr, "weight_decay": decay} for lr, decay in rates]


def scalar_rows(optimizer: Any, program: Sequence[Kernel], factor: float) -> list[dict[str, float]]:
    """The program's scalars for each group."""
    found: list[dict[str, float]] = [{GRAD_SCALE: factor} for _ in range(optimizer.group_count)]
    for row, values in zip(found, values_now(optimizer), strict=True):
        for place, kernel in enumerate(program):
            row |= {f"{name}_{place}": value for name, value in kernel.scalars_from(values).items()}
    return found
