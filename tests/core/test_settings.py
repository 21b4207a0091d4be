"""The settings of a curvature estimate: which values are refused, by name, in one line."""

from __future__ import annotations

import pytest

from hessiod.core import InvalidArgument
from hessiod.core.settings import CHECKS, check_settings

GOOD = {
    "every": (1, 10),
    "seed": (0, 2**64 - 1),
    "samples": (1, 8),
    "num_vectors": (1, 8),
    "estimator": ("gauss-newton-bartlett", "hutchinson"),
    "likelihood": ("categorical", "bernoulli", "gaussian"),
    "probe": ("rademacher", "normal"),
    "timing": ("paper", "official"),
    "fraction": (0.01, 0.5, 1, 1.0),
    "warm_start": (True, False),
}
BAD = {
    "every": (0, -1, 2.5, True, None, "10"),
    "seed": (-1, 2**64, 0.5, True, None),
    "samples": (0, 1.5, True, None),
    "num_vectors": (0, 1.5, None),
    "estimator": ("exact", None, 3),
    "likelihood": ("poisson", None, ["categorical"]),
    "probe": ("uniform", None),
    "timing": ("late", None),
    "fraction": (0.0, -0.5, 1.5, float("nan"), "half", True, None),
    "warm_start": (1, 0, None, "yes"),
}


def test_every_setting_is_tested():
    assert set(CHECKS) == set(GOOD) == set(BAD)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in GOOD.items() for value in values])
def test_what_may_be(name, value):
    check_settings({name: value})


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_what_may_not_be(name, value):
    with pytest.raises(InvalidArgument, match=f"^{name}: found ") as caught:
        check_settings({"lr": 0.1, name: value})
    assert "expected" in str(caught.value)
    assert "\n" not in str(caught.value)
