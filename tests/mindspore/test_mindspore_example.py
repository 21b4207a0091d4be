"""The example for Model.train, as users run it."""

import shutil
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import mindspore as ms
import pytest

FILE = Path(__file__).parents[2] / "examples" / "trainers" / "mindspore_model.py"


@pytest.fixture(scope="module")
def example():
    spec = spec_from_file_location("mindspore_model", FILE)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Losses(ms.train.Callback):
    def __init__(self):
        self.found, self.refreshed = [], []

    def on_train_step_end(self, run_context):
        run = run_context.original_args()
        self.found.append(float(run.net_outputs.asnumpy()))
        self.refreshed.append(int(run.train_network.optimizer.refreshes.asnumpy()))


def test_it_learns_and_goes_on_bit_for_bit(example, tmp_path):
    """28 steps an epoch, curvature at 1, 11, 21, ...; the second epoch from the first one's file."""
    losses, rest = Losses(), Losses()
    whole, accuracy = example.fit(tmp_path, 2, False, [Keep(tmp_path), losses])
    assert accuracy > 0.85
    assert sum(losses.found[28:]) < 0.6 * sum(losses.found[:28])
    assert losses.refreshed == [(step + 9) // 10 for step in range(1, 57)]
    shutil.copy(tmp_path / "first.safetensors", tmp_path / "run.safetensors")
    again, _ = example.fit(tmp_path, 2, True, [rest])
    assert rest.found == losses.found[28:]
    for one, other in zip(whole.get_parameters(), again.get_parameters(), strict=True):
        assert one.asnumpy().tobytes() == other.asnumpy().tobytes(), one.name


class Keep(ms.train.Callback):
    """A copy of the first epoch's file."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_epoch_end(self, run_context):
        if run_context.original_args().cur_epoch_num == 1:
            shutil.copy(self.folder / "run.safetensors", self.folder / "first.safetensors")
