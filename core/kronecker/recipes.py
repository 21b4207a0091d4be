"""How learning rate, momentum and damping change over a run, in the recipes of SP-NGD and of THOR.

Functions of the epoch, which may be a fraction: ``step / steps_per_epoch``.
"""

from __future__ import annotations


def polynomial_lr(epoch: float, *, lr: float, start: float, end: float, power: float) -> float:
    """``lr * (1 - (epoch - start) / (end - start))^power``, constant before ``start`` and 0 from ``end`` on.

    SP-NGD (Osawa et al., arXiv:2002.06015, section 5.2).

    >>> [round(polynomial_lr(epoch, lr=1.0, start=1.0, end=5.0, power=2.0), 4) for epoch in (0, 1, 3, 9)]
    [1.0, 1.0, 0.25, 0.0]
    """
    left = 1.0 - (epoch - start) / (end - start)
    return lr * min(max(left, 0.0), 1.0) ** power


def coupled_momentum(lr: float, *, first_lr: float, momentum: float) -> float:
    """SP-NGD's momentum, which falls with the learning rate: ``momentum * lr / first_lr``.

    >>> coupled_momentum(0.01, first_lr=0.04, momentum=0.8)
    0.2
    """
    return momentum * lr / first_lr


def thor_lr(epoch: float, *, lr: float, total: float, decay: float) -> float:
    """THOR's ``lr * (1 - epoch / total)^decay`` (Chen et al., AAAI 2021; MindSpore's ResNet-50: .05803, 53, 4.0839).

    >>> round(thor_lr(26.5, lr=0.05803, total=53.0, decay=4.0839), 6)
    0.003422
    """
    return lr * max(1.0 - epoch / total, 0.0) ** decay


def thor_damping(epoch: float, *, damping: float, decay: float) -> float:
    """THOR's ``damping * decay^(epoch / 10)`` (MindSpore's ResNet-50: .03 and .50036).

    >>> round(thor_damping(20.0, damping=0.03, decay=0.5), 6)
    0.0075
    """
    return damping * decay ** (epoch / 10.0)
