"""A step on the host through compiled kernels gives the bits of the step inside the graph."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor

from hessiod.backends import kernels
from hessiod.core.errors import NonFinite
from hessiod.mindspore import AdamW


@pytest.fixture
def calls(monkeypatch):
    """How many tensors the compiled kernels moved, call by call."""
    found, real = [], kernels.Sweep.run

    def counted(self, sizes, *rest):
        found.append(len(sizes))
        return real(self, sizes, *rest)

    monkeypatch.setattr(kernels.Sweep, "run", counted)
    return found


def stepped(dtype, nonfinite="raise"):
    param = Parameter(Tensor(np.linspace(-1, 1, 10).astype(np.float32)).astype(dtype), name="theta")
    opt = AdamW([param], learning_rate=0.1, loss_scale=8.0, nonfinite=nonfinite)
    for scale in (8.0, -4.0, 2.0):
        opt((Tensor(np.full(10, scale, np.float32)).astype(dtype),))
    return param, opt


@pytest.mark.parametrize("dtype", [ms.float32, ms.float64, ms.float16], ids=str)
def test_a_step_of_any_dtype_gives_the_graphs_bits(dtype, calls, monkeypatch):
    param, _ = stepped(dtype)
    assert calls == [1] * 3
    monkeypatch.setenv("HESSIOD_KERNELS", "eager")
    other, _ = stepped(dtype)
    np.testing.assert_array_equal(param.astype(ms.float64).asnumpy(), other.astype(ms.float64).asnumpy())


@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
def test_a_refused_step_changes_nothing_but_the_count(nonfinite, calls):
    param, opt = stepped(ms.float32, nonfinite)
    before = param.asnumpy().copy()
    bad = (Tensor(np.array([1.0] * 9 + [np.nan], np.float32)),)
    if nonfinite == "raise":
        with pytest.raises(NonFinite, match="'theta'"):
            opt(bad)
    else:
        opt(bad)
    np.testing.assert_array_equal(param.asnumpy(), before)
    assert (opt.steps, int(opt.refused.asnumpy()), len(calls)) == (3, 1, 3)
