"""Cells that hold parameters of any name.

MindSpore registers the members of a ParameterTuple under their own names, beside a Cell's attributes. A parameter that
is called like one of them, "learning_rate" or "every", then replaces it or is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops


class Holder(nn.Cell):
    """A Cell that registers a ParameterTuple's members behind the tuple's name and a dot, where no attribute is."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not isinstance(value, ParameterTuple):
            super().__setattr__(name, value)
            return
        for param in value:
            self.insert_param_to_cell(f"{name}.{param.name}", param, check_name_contain_dot=False)
        object.__setattr__(self, name, value)


def name_apart(own: Iterable[Parameter], others: Iterable[Parameter]) -> None:
    """Rename an optimizer's own parameters where the user has one of that name: a graph and a checkpoint need both."""
    taken = {param.name for param in others}
    for param in own:
        while param.name in taken:
            param.name = f"optimizer.{param.name}"


def put(parameter: Parameter, values: np.ndarray) -> None:
    """Put values into a parameter so that graphs which have run see them too.

    On the host that is a write through the zero-copy view; ``set_data`` and ``load_param_into_net`` are not seen. On a
    device it is an assignment (not run on Ascend so far).
    """
    view = parameter.asnumpy()
    values = values.view(view.dtype).reshape(view.shape)
    if ms.get_context("device_target") == "CPU":
        view[...] = values
    else:
        ops.assign(parameter, Tensor.from_numpy(values))
