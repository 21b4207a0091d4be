"""A torch model and optimizer as a checkpoint sees them. Torch's names and layouts are the canonical ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hessiod.backends.checkpoint.arrays import Array
from hessiod.backends.checkpoint.layers import settings_of
from hessiod.backends.checkpoint.layouts import kind_of
from hessiod.backends.checkpoint.record import Group, Record
from hessiod.backends.checkpoint.renaming import renamer
from hessiod.backends.checkpoint.state import Loaded, Names, load_state, save_state
from hessiod.backends_torch.adapter import RuleOptimizer, flat_hyperparameters
from hessiod.backends_torch.kronecker.optimizer import KroneckerOptimizer
from hessiod.backends_torch.kronecker.saved import SavedLayers
from hessiod.backends_torch.precision import zeros_for
from hessiod.backends_torch.saved_tensors import array_in, array_of
from hessiod.backends_torch.second_order import DRAWS, CurvatureOptimizer
from hessiod.backends_torch.states import counts_of
from hessiod.core.errors import InvalidArgument, InvalidState

SETTINGS = ("every", "seed", "estimator", "timing", *DRAWS)
"""What the groups hold for the whole optimizer; the warm start is in the rule's name."""


def save(path: str | Path, model: nn.Module, optimizer: Any = None, extra: Any = None, names: Names = None) -> None:
    """See :func:`hessiod.checkpoint.save`."""
    save_state(path, TorchBridge(model, optimizer, names), extra)


def load(
    path: str | Path, model: nn.Module, optimizer: Any = None, names: Names = None, allow: Sequence[str] = ()
) -> Loaded:
    """See :func:`hessiod.checkpoint.load`."""
    return load_state(path, TorchBridge(model, optimizer, names), allow)


def unwrapped(model: Any) -> nn.Module:
    """The user's model inside DistributedDataParallel, DataParallel or torch.compile."""
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        elif hasattr(model, "_orig_mod"):
            model = model._orig_mod
        else:
            return model


def named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and persistent buffers, shared ones under each of their names."""
    persistent = set(model.state_dict(keep_vars=True))
    extra = sorted(name for name in persistent if name.rpartition(".")[2] == "_extra_state")
    if extra:
        raise InvalidArgument(f"model: {extra[0]!r} is state of no known form; save what it needs in extra=")
    for name, tensor in (
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ):
        if name in persistent or isinstance(tensor, nn.Parameter):
            yield name.replace("_orig_mod.", ""), tensor


class TorchBridge:
    """See :class:`hessiod.backends.checkpoint.state.Bridge`."""

    framework = "torch"
    lr_is_state = True

    def __init__(self, model: nn.Module, optimizer: Any = None, names: Names = None) -> None:
        if optimizer is not None and not isinstance(optimizer, RuleOptimizer):
            raise InvalidArgument(
                f"optimizer: found {type(optimizer).__name__}, expected one of hessiod.torch, or None; keep another "
                "one's state_dict() in a file of torch.save"
            )
        model = unwrapped(model)
        self.versions = {"torch": torch.__version__, "numpy": np.__version__}
        self.optimizer: RuleOptimizer | None = optimizer
        tensors = list(named_tensors(model))
        rename = renamer(names, [name for name, _ in tensors])
        self.names: dict[Tensor, str] = {}
        self.model_arrays: list[Array] = []
        self.tied: dict[str, str] = {}
        for native, tensor in tensors:
            if tensor in self.names:
                self.tied[rename(native)] = self.names[tensor]
                continue
            self.names[tensor] = rename(native)
            self.model_arrays.append(array_of(rename(native), tensor, native))
        self.saved_layers = SavedLayers(optimizer, self.name_of) if isinstance(optimizer, KroneckerOptimizer) else None
        kinds = ((path.replace("_orig_mod.", ""), kind_of(type(module))) for path, module in model.named_modules())
        self.layers = {path: kind for path, kind in kinds if kind}

    # The optimizer

    def name_of(self, param: Tensor) -> str:
        """The name of a parameter that the optimizer has."""
        if param not in self.names:
            raise InvalidArgument(
                f"optimizer: it has a parameter of shape {tuple(param.shape)} that is not the model's; give the model "
                "that the optimizer was constructed with"
            )
        return self.names[param]

    def _groups(self) -> list[dict[str, Any]]:
        return [] if self.optimizer is None else self.optimizer.param_groups

    def record(self, at: int | None = None) -> Record | None:
        """What is to be known of the optimizer; torch knows of no schedule, so ``at`` makes no difference."""
        optimizer = self.optimizer
        if optimizer is None:
            return None
        if getattr(optimizer, "_pending", None) is not None:
            raise InvalidState("checkpoint: update_curvature was called and its step is yet to come; call step() first")
        first, second_order = optimizer.param_groups[0], isinstance(optimizer, CurvatureOptimizer)
        movable = [param for group in self._groups() for param in group["params"] if param.requires_grad]
        counts = {self.name_of(param): self._counts(group, param) for group, param in self._each()}
        refreshes = max((found["refreshes"] for found in counts.values() if "refreshes" in found), default=0)
        usual = {"step": optimizer.steps, "refreshes": refreshes}
        return Record(
            optimizer=type(optimizer).__name__,
            step=optimizer.steps,
            refreshes=refreshes if second_order else None,
            parameters=[self.name_of(param) for param in movable],
            settings=self._settings(first),
            groups=[self._group(group) for group in self._groups()],
            behind={name: found for name, found in counts.items() if any(found[k] != usual[k] for k in found)},
            modes={"official": True, "bs": first["bs"]} if first.get("official") else {},
            kronecker={} if self.saved_layers is None else self.saved_layers.document(),
        )

    def _settings(self, group: Mapping[str, Any]) -> dict[str, Any]:
        if self.saved_layers is not None:
            return settings_of(group, group.get("target_damping", group.get("first_damping")), self.optimizer)
        return {name: group[name] for name in SETTINGS if group.get(name) is not None}

    def _each(self) -> Iterator[tuple[dict[str, Any], Tensor]]:
        for group in self._groups():
            for param in group["params"]:
                yield group, param

    def _counts(self, group: Mapping[str, Any], param: Tensor) -> dict[str, int]:
        assert self.optimizer is not None
        state = self.optimizer.state.get(param) or {}
        return {count: int(state.get(count, 0)) for count in counts_of(self.optimizer.rule_of(group))}

    def _group(self, group: Mapping[str, Any]) -> Group:
        assert self.optimizer is not None
        rule = self.optimizer.rule_of(group)
        values = flat_hyperparameters(group, rule)
        settings = {"maximize": group["maximize"]}
        if "spatial_averaging" in group:
            settings["spatial_averaging"] = group["spatial_averaging"]
        if group.get("couple_momentum") and group["covered"]:
            settings["first_lr"] = float(group["first_lr"])
        names = [self.name_of(param) for param in group["params"]]
        return Group(names, rule.name, values.pop("lr"), values, settings)

    def slots(self) -> list[Array]:
        """The state of every parameter that has moved; before that it is zeros."""
        moved = ((g, param) for g, param in self._each() if any(self._counts(g, param).values()))
        own = [array for group, param in moved for array in self._slots(group, param)]
        return own if self.saved_layers is None else [*own, *self.saved_layers.slots()]

    def slots_for(self, record: Record) -> list[Array]:
        """The state of every parameter that has moved in the file."""
        arrays: list[Array] = []
        for group, param in self._each():
            if any(record.counts(self.name_of(param)).values()):
                arrays += self._slots(group, param, missing=True)
        if self.saved_layers is not None:
            arrays += self.saved_layers.slots_for(record.kronecker)
        return arrays

    def _slots(self, group: Mapping[str, Any], param: Tensor, missing: bool = False) -> Iterator[Array]:
        assert self.optimizer is not None
        state = self.optimizer.state.get(param) or {}
        for slot in self.optimizer.rule_of(group).slots:
            name = f"{self.name_of(param)}/{slot}"
            if slot in state:
                yield array_of(name, state[slot], name)
            elif missing:
                dtype = torch.float32 if param.dtype.itemsize < 4 else param.dtype
                yield array_in(self._maker(param, slot), name, dtype, tuple(param.shape), name)

    def _maker(self, param: Tensor, slot: str) -> Callable[[], Tensor]:
        def make() -> Tensor:
            assert self.optimizer is not None
            return self.optimizer.state[param].setdefault(slot, zeros_for(param))

        return make

    def check(self, record: Record) -> None:
        """Refuse a record that lacks a parameter of this optimizer."""
        if record.groups is None:
            return
        theirs = [name for group in record.groups for name in group.parameters]
        ours = [self.name_of(param) for _, param in self._each()]
        missing, extra = sorted(set(ours) - set(theirs)), sorted(set(theirs) - set(ours))
        moved = [name for name in extra if any(record.counts(name).values())]
        if missing or moved:
            found = "; ".join(
                [*(f"{n} is only in this one" for n in missing), *(f"{n} is only in the file's" for n in moved)]
            )
            raise InvalidArgument(f"optimizer: it has other parameters than the file's: {found}; give it the same ones")

    def settle(self, record: Record) -> None:
        """Set counts, learning rates and modes."""
        assert self.optimizer is not None
        refreshes = record.refreshes
        if refreshes is None and isinstance(self.optimizer, CurvatureOptimizer):
            refreshes = self.optimizer.refreshes_by(record.step)  # format 1
        for group, param in self._each():
            found = {**record.counts(self.name_of(param))}
            if not any(found.values()):
                self.optimizer.state.pop(param, None)
                continue
            found["refreshes"] = refreshes if found["refreshes"] is None else found["refreshes"]
            own = {c: self.optimizer._count(found[c], [param]) for c in counts_of(self.optimizer.rule_of(group))}
            self.optimizer.state[param].update(own)
        for group in self._groups():
            group["step"] = self.optimizer._count(record.step, group["params"])
            theirs = record.group_of(self.name_of(group["params"][0])) if group["params"] else None
            if theirs is not None:
                set_lr(group, theirs.lr)
            if "official" in group:
                group.update(official=record.modes.get("official", False), bs=record.modes.get("bs"))
        if self.saved_layers is not None:
            self.saved_layers.settle(record.kronecker)
        self.optimizer._settled()


def set_lr(group: dict[str, Any], lr: float) -> None:
    """Set a group's learning rate, in place where it is a tensor."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(lr)
    else:
        group["lr"] = lr


def bridge(model: nn.Module, optimizer: Any = None, names: Names = None) -> TorchBridge:
    """What a checkpoint sees of a model and its optimizer."""
    return TorchBridge(model, optimizer, names)
