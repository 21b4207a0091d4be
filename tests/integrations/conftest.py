"""One thread, the examples' folder on the path, and a record of when curvature was given."""

from pathlib import Path

import pytest
import torch

from hessiod.backends_torch.kronecker.optimizer import KroneckerOptimizer
from hessiod.backends_torch.second_order import CurvatureOptimizer

EXAMPLES = Path(__file__).parents[2] / "examples" / "trainers"


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _examples(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))


@pytest.fixture
def given(monkeypatch):
    """The number of the coming step at each estimate that an optimizer was given."""
    found = []

    def recorded(kind):
        update = kind.update_curvature

        def update_curvature(self, **options):
            update(self, **options)
            found.append(self.steps + 1)

        monkeypatch.setattr(kind, "update_curvature", update_curvature)

    recorded(CurvatureOptimizer)
    recorded(KroneckerOptimizer)
    return found


def tensors(model, opt):
    """Everything that a run consists of; K-FAC's inverses are lists of blocks."""
    params = list(model.parameters())
    found = [opt.state[p][name] for p in params if p in opt.state for name in sorted(opt.state[p])]
    parts = [part for value in found for part in (value if isinstance(value, list | tuple) else [value])]
    return [p.detach().clone() for p in params] + [torch.as_tensor(part) for part in parts if part is not None]


@pytest.fixture
def assert_same():
    """Two runs, each a model and its optimizer, agree bit for bit."""

    def check(run, other):
        pairs = list(zip(tensors(*run), tensors(*other), strict=True))
        assert len(pairs) > len(list(run[0].parameters()))
        for a, b in pairs:
            assert torch.equal(a, b)

    return check
