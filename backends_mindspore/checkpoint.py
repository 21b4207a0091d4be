"""A MindSpore net and optimizer as a checkpoint sees them, under torch's names and layouts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from hessiod.backends.checkpoint import layers
from hessiod.backends.checkpoint.arrays import DTYPES, Array
from hessiod.backends.checkpoint.layouts import LAYERS, Layer, kind_of, squeezed
from hessiod.backends.checkpoint.record import Group, Record
from hessiod.backends.checkpoint.renaming import renamer
from hessiod.backends.checkpoint.state import Loaded, Names, load_state, save_state
from hessiod.backends_mindspore.adapter import RuleOptimizer
from hessiod.backends_mindspore.holder import put
from hessiod.backends_mindspore.kronecker.optimizer import KroneckerOptimizer
from hessiod.backends_mindspore.kronecker.saved import SavedLayers
from hessiod.backends_mindspore.kronecker.spngd import SPNGD
from hessiod.backends_mindspore.second_order import CurvatureOptimizer, GaussNewtonOptimizer, HutchinsonOptimizer
from hessiod.core.errors import InvalidArgument

CODES = {
    ms.bool_: "BOOL",
    ms.uint8: "U8",
    ms.int8: "I8",
    ms.int16: "I16",
    ms.int32: "I32",
    ms.int64: "I64",
    ms.float16: "F16",
    ms.bfloat16: "BF16",
    ms.float32: "F32",
    ms.float64: "F64",
    ms.complex64: "C64",
}
PLAIN = Layer()


def save(path: str | Path, model: nn.Cell, optimizer: Any = None, extra: Any = None, names: Names = None) -> None:
    """See :func:`hessiod.checkpoint.save`."""
    save_state(path, MindSporeBridge(model, optimizer, names), extra)


def load(
    path: str | Path, model: nn.Cell, optimizer: Any = None, names: Names = None, allow: Sequence[str] = ()
) -> Loaded:
    """See :func:`hessiod.checkpoint.load`."""
    return load_state(path, MindSporeBridge(model, optimizer, names), allow)


def array_of(name: str, parameter: Parameter, native: str, shape: tuple[int, ...]) -> Array:
    """A parameter under a canonical name and shape."""
    if parameter.dtype not in CODES:
        raise InvalidArgument(
            f"model: {native!r} is of dtype {parameter.dtype}, expected one of {', '.join(map(str, CODES))}"
        )
    code = CODES[parameter.dtype]

    def read() -> np.ndarray:
        return parameter.asnumpy().view(DTYPES[code]).reshape(shape)

    on_host = ms.get_context("device_target") == "CPU"
    return Array(
        *(name, code, shape, read, lambda v: put(parameter, v), native, tuple(parameter.shape)),
        memory=read if on_host else lambda: None,
    )


def walk(cell: nn.Cell, native: str = "", path: str = "") -> Iterator[tuple[nn.Cell, str, str, Layer]]:
    """Every cell with its own path, its canonical path, and what is special about its kind."""
    layer = LAYERS.get(kind_of(type(cell)) or "", PLAIN)
    yield cell, native, path, layer
    for name, child in cell._cells.items():
        if child is not None:
            canonical = layer.children.get(name, name)
            yield from walk(child, f"{native}{name}.", f"{path}{canonical}." if canonical else path)


_BATCHES: WeakKeyDictionary[nn.Cell, np.ndarray] = WeakKeyDictionary()
"""Batch norms' ``num_batches_tracked``, which torch has and MindSpore has not: kept here, to be saved again."""


def batches_of(cell: nn.Cell, name: str) -> Array:
    """Torch's count of a batch norm's batches; MindSpore leaves it as it was loaded."""

    def write(values: np.ndarray) -> None:
        _BATCHES[cell] = values.copy()

    return Array(name, "I64", (), lambda: _BATCHES.get(cell, np.zeros((), np.int64)), write, "none", ())


class MindSporeBridge:
    """See :class:`hessiod.backends.checkpoint.state.Bridge`."""

    framework = "mindspore"
    lr_is_state = False

    def __init__(self, model: nn.Cell, optimizer: Any = None, names: Names = None) -> None:
        if optimizer is not None and not isinstance(optimizer, RuleOptimizer):
            raise InvalidArgument(
                f"optimizer: found {type(optimizer).__name__}, expected one of hessiod.mindspore, or None; keep "
                "another one in a file of mindspore.save_checkpoint"
            )
        self.versions = {"mindspore": ms.__version__, "numpy": np.__version__}
        self.optimizer: RuleOptimizer | None = optimizer
        self.found: dict[int, Array] = {}
        self.model_arrays: list[Array] = []
        self.tied: dict[str, str] = {}
        self.layers: dict[str, str] = {}
        self.squeezed: dict[int, Layer] = {}
        cells = list(walk(model))
        known = [path + layer.parameters.get(key, key) for cell, _, path, layer in cells for key in cell._params]
        rename = renamer(names, known)
        for cell, native, path, layer in cells:
            kind = kind_of(type(cell))
            if kind:
                self.layers.setdefault(path.rstrip("."), kind)
            self._add_cell(cell, native, path, layer, rename)
        self.members: Sequence[RuleOptimizer] = () if optimizer is None else optimizer.members
        self.saved_layers = None
        if isinstance(optimizer, KroneckerOptimizer):
            self.saved_layers = SavedLayers(optimizer, lambda p: self.array_of_parameter(p).name, array_of)

    def _add_cell(self, cell: nn.Cell, native: str, path: str, layer: Layer, rename: Any) -> None:
        for key, parameter in cell._params.items():
            if parameter is None:
                continue
            canonical = layer.parameters.get(key, key)
            name = rename(path + canonical)
            if id(parameter) in self.found:
                self.tied[name] = self.found[id(parameter)].name
                continue
            shape = squeezed(tuple(parameter.shape), canonical, layer)
            self.found[id(parameter)] = array_of(name, parameter, native + key, shape)
            self.model_arrays.append(self.found[id(parameter)])
        if "moving_mean" in cell._params and "BatchNorm" in type(cell).__name__:
            self.model_arrays.append(batches_of(cell, rename(f"{path}num_batches_tracked")))

    # The optimizer

    def array_of_parameter(self, parameter: Parameter) -> Array:
        """The array of a parameter that the optimizer has."""
        if id(parameter) not in self.found:
            raise InvalidArgument(
                f"optimizer: it has the parameter {parameter.name!r}, which is not the model's; give the net that the "
                "optimizer was constructed with"
            )
        return self.found[id(parameter)]

    @property
    def names(self) -> list[str]:
        """The names of the optimizer's parameters, in its order."""
        return [name for member in self.members for name in self.names_of(member)]

    def names_of(self, member: RuleOptimizer) -> list[str]:
        """The names of one optimizer's parameters: of the whole one's, or of those that factors do not cover."""
        return [self.array_of_parameter(parameter).name for parameter in member.parameters]

    def record(self, at: int | None = None) -> Record | None:
        """What is to be known of the optimizer; schedules at the step ``at`` if one is given."""
        optimizer = self.optimizer
        if optimizer is None:
            return None
        second_order = isinstance(optimizer, CurvatureOptimizer)
        step = optimizer.steps if at is None else at
        return Record(
            optimizer=type(optimizer).__name__,
            step=optimizer.steps,
            refreshes=int(optimizer.refreshes.asnumpy()) if second_order else None,
            parameters=self.names,
            settings=settings_of(optimizer),
            groups=[group for member in self.members for group in self._groups(member, step)],
            kronecker={} if self.saved_layers is None else self.saved_layers.document(),
        )

    def _groups(self, optimizer: RuleOptimizer, step: int) -> list[Group]:
        groups = []
        for number in range(optimizer.group_count):
            names = [n for n, own in zip(self.names_of(optimizer), optimizer.group_of, strict=True) if own == number]
            pairs = zip(optimizer.hyperparameter_names, optimizer.hyperparameter_values, strict=True)
            values = {name: float(value.asnumpy()) for name, value in pairs}
            values["weight_decay"] = weight_decay_of(optimizer, number, step)
            settings: dict[str, Any] = {"maximize": False}
            if optimizer.rule_name.startswith("adahessian"):
                settings["spatial_averaging"] = optimizer.spatial_averaging
            if isinstance(optimizer, SPNGD) and optimizer.couple_momentum:
                settings["first_lr"] = float(optimizer.first_rates[number].asnumpy())
            groups.append(Group(names, optimizer.rule_name, rate_of(optimizer, number, step), values, settings))
        return groups

    def slots(self) -> list[Array]:
        """The state, if a step was taken; before that it is zeros."""
        assert self.optimizer is not None
        own = () if self.saved_layers is None else self.saved_layers.slots()
        return [*self._slots(), *own] if self.optimizer.steps else []

    def slots_for(self, record: Record) -> list[Array]:
        """The state of every parameter, and of the layers that have some in the file."""
        own = () if self.saved_layers is None else self.saved_layers.slots_for(record.kronecker)
        return [*self._slots(), *own] if record.step else []

    def _slots(self) -> list[Array]:
        arrays = []
        for member in self.members:
            for slot in member.slot_names:
                for parameter, state in zip(member.parameters, getattr(member, slot), strict=True):
                    own = self.array_of_parameter(parameter)
                    arrays.append(array_of(f"{own.name}/{slot}", state, f"{slot}.{own.native}", own.shape))
        return arrays

    def check(self, record: Record) -> None:
        """Refuse a record with counts, modes or parameters that an optimizer of MindSpore cannot have."""
        if record.modes:
            raise InvalidArgument(
                "optimizer: the file is of a run in the loop of Sophia's authors (update_hessian), which MindSpore "
                "has not; go on with it in torch"
            )
        names = set(self.names)
        behind = sorted(set(record.behind) & names)
        if behind:
            raise InvalidArgument(
                f"optimizer: the file's {', '.join(behind)} took fewer steps than the rest, and MindSpore's optimizers "
                "count once for all; leave them out of this optimizer, or go on in torch"
            )
        theirs = [name for group in record.groups or () for name in group.parameters]
        missing = sorted(names - set(theirs)) if record.groups is not None else []
        moved = sorted(name for name in set(theirs) - names if record.counts(name)["step"])
        if missing or moved:
            found = "; ".join(
                [*(f"{n} is only in this one" for n in missing), *(f"{n} is only in the file's" for n in moved)]
            )
            raise InvalidArgument(f"optimizer: it has other parameters than the file's: {found}; give it the same ones")

    def settle(self, record: Record) -> None:
        """Set the counts; a file of before the first step has no slots, which are zeros then."""
        optimizer = self.optimizer
        assert optimizer is not None
        if not record.step:
            for array in self._slots():
                array.write(np.zeros(array.shape, DTYPES[array.dtype]))
        for member in self.members:
            put(member.global_step, np.full(member.global_step.shape, record.step, np.int32))
            put(member.finite, np.ones(member.finite.shape, bool))
        if self.saved_layers is not None:
            self.saved_layers.settle(record.kronecker)
        if isinstance(optimizer, CurvatureOptimizer):
            refreshes = optimizer.refreshes_by(record.step) if record.refreshes is None else record.refreshes
            put(optimizer.refreshes, np.array(refreshes, np.int32))


def settings_of(optimizer: RuleOptimizer) -> Mapping[str, Any]:
    """The settings of the whole optimizer, under torch's names."""
    if isinstance(optimizer, KroneckerOptimizer):
        return layers.settings_of(optimizer.settings, optimizer.settings["damping"], optimizer)
    if not isinstance(optimizer, CurvatureOptimizer):
        return {}
    timing = "official" if optimizer.curvature_first else "paper"
    shared: dict[str, Any] = {"every": optimizer.every, "seed": optimizer.seed % 2**64}
    if optimizer.rule_name.startswith("sophia"):
        shared["timing"] = timing
    if isinstance(optimizer, GaussNewtonOptimizer):
        own = {"likelihood": optimizer.likelihood, "fraction": optimizer.fraction}
        return {**shared, "estimator": "gauss-newton-bartlett", **own}
    if isinstance(optimizer, HutchinsonOptimizer):
        return {**shared, "estimator": "hutchinson", "probe": optimizer.probe, "samples": optimizer.samples}
    return shared


def value_at(found: Any, place: int, step: int) -> Tensor:
    """A learning rate or weight decay of a parameter at a step: one of a tuple, a Cell of the step, or a constant."""
    found = found[place] if isinstance(found, tuple | list | nn.CellList) else found
    return found(Tensor([step], ms.int32)).reshape(()) if isinstance(found, nn.Cell) else found


def rate_of(optimizer: RuleOptimizer, group: int, step: int) -> float:
    """The learning rate of a group after some steps; after the end of a list its last one, which no step will have."""
    table = optimizer.group_rates.tables[group].asnumpy()
    if len(table) > 1 and step >= len(table):
        return float(table[-1])
    rate = value_at(optimizer.learning_rate, optimizer.group_places[group], step)
    return float(optimizer.group_rates.exact(rate, group, Tensor(step, ms.int32)).asnumpy())


def weight_decay_of(optimizer: RuleOptimizer, group: int, step: int) -> float:
    """The weight decay of a group after some steps."""
    if not optimizer.decay_is_cell[group]:
        return float(optimizer.group_decays[group].asnumpy())
    decay = value_at(optimizer.weight_decay, optimizer.group_places[group], step)
    return float(ops.cast(decay, ms.float64).asnumpy()) / optimizer.loss_scale


def bridge(model: nn.Cell, optimizer: Any = None, names: Names = None) -> MindSporeBridge:
    """What a checkpoint sees of a model and its optimizer."""
    return MindSporeBridge(model, optimizer, names)
