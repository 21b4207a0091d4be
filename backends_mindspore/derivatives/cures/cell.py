"""The base of what stands in for an operator."""

from __future__ import annotations

from typing import ClassVar

from mindspore import nn
from mindspore.ops import Primitive


class CuredOperator(nn.Cell):
    """A Cell that is called like the operator it replaces, and made from the operator's own arguments.

    A subclass is called ``Cured`` and the operator's name: that is its scope in a traced graph.
    """

    arguments: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self._set_scope(f"Default/{type(self).__name__}")

    @classmethod
    def like(cls, primitive: Primitive) -> CuredOperator:
        """The replacement of an instance of the operator."""
        return cls(*[getattr(primitive, name) for name in cls.arguments])


def own(primitive: Primitive) -> Primitive:
    """An operator that is traced as it is, for use within a replacement."""
    primitive.is_hessiods_own = True
    return primitive
