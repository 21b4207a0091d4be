"""Small nets as users put them together: what single operators do not show."""

from typing import Any

import numpy as np

from hessiod.backends.certification.case import case, family, normal, spread

LABELS = np.array([1, 0, 2])
NEXT = np.array([[2, 0, 1]])
MLP: dict[str, Any] = dict(w1=normal(5, 4, scale=0.7), b1=normal(5), w2=normal(3, 5, scale=0.7), b2=normal(3))


def block(width: int) -> dict[str, Any]:
    """The weights of a transformer block with a head over three tokens."""
    return dict(
        g1=normal(width, scale=0.2, shift=1.0),
        c1=normal(width, scale=0.2),
        qkv=normal(3 * width, width, scale=0.6),
        out=normal(width, width, scale=0.6),
        g2=normal(width, scale=0.2, shift=1.0),
        c2=normal(width, scale=0.2),
        up=normal(2 * width, width, scale=0.6),
        down=normal(width, 2 * width, scale=0.6),
        head=normal(3, width, scale=0.6),
    )


CONV: dict[str, Any] = dict(weight=normal(2, 2, 3, 3, scale=0.4), gamma=normal(2, scale=0.2, shift=1.0), beta=normal(2))
CASES = family(
    "nets",
    mlp_tanh=case(x=normal(3, 4), **MLP, labels=LABELS),
    mlp_gelu=case(x=normal(3, 4), **MLP, labels=LABELS),
    mlp_silu=case(x=normal(3, 4), **MLP, labels=LABELS),
    mlp_relu=case(x=spread(3, 4), **MLP, labels=LABELS, kinks=True),
    conv_block=case(x=normal(2, 2, 4, 4), **CONV, kinks=True),
    residual_block=case(x=normal(2, 2, 3, 3), **CONV, kinks=True),
    gpt_block=case(x=normal(1, 3, 4, scale=0.02), **block(4), labels=NEXT),
)
