"""The example for Model.train, as users run it, and the autoencoder's and the convnet's runs beside PyTorch's."""

import importlib
import shutil
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import mindspore as ms
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
FILE = EXAMPLES / "trainers" / "mindspore_model.py"


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


@pytest.fixture
def runs(monkeypatch):
    """The modules of an example for PyTorch and for MindSpore, under their own names while the test runs."""

    def load(folder):
        monkeypatch.syspath_prepend(EXAMPLES / folder)
        for name in ("task", "torch_runs", "mindspore_runs"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        found = [importlib.import_module(f"{framework}_runs") for framework in ("torch", "mindspore")]
        for name in ("task", "torch_runs", "mindspore_runs"):
            monkeypatch.delitem(sys.modules, name)
        return found

    yield load
    ms.set_context(mode=ms.PYNATIVE_MODE)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kfac", "spngd", "thor", "sgd", "adam"])
def test_the_autoencoder_is_trained_alike_on_both_frameworks(name, runs):
    """Eleven steps by the tuned settings; targets are sampled by K-FAC. Adam's update is each framework's own."""
    settings = {"lr": 0.3, "damping": 0.03, "kl_clip": 0.003, "schedule": "linear"}
    settings = {
        "adam": {"lr": 0.004, "betas": [0.9, 0.95]},
        "sgd": {"lr": 0.03, "momentum": 0.9, "nesterov": True},
    }.get(name, settings)
    modules = runs("autoencoder")
    theirs, ours = (module.run(name, settings, 11, 102) for module in modules)
    untrained = modules[1].mse(modules[1].net_of(102), modules[1].digits()[0])
    for measure in ("train", "held_out"):
        assert ours[measure] == pytest.approx(theirs[measure], rel=1e-4)
    assert abs(ours["train"] - untrained) > 0.1


def test_the_convnet_is_the_same_on_both_frameworks_and_learns(runs):
    """The same numbers from the same weights, the same treatment; PyTorch's K-FAC then halves the loss in 12 steps."""
    on_torch, on_mindspore = runs("convnet")
    images, labels = on_torch.digits()[1]
    theirs = on_torch.judged(on_torch.model_of(), images, labels)
    ours = on_mindspore.judged(on_mindspore.net_of(), images, labels)
    assert ours == pytest.approx(theirs, rel=1e-5)
    names = on_mindspore.plan().replace("gamma ", "weight").replace("beta", "bias").split()
    assert names == on_torch.plan().split()
    assert on_torch.run("K-FAC", 12)["loss"] < 0.5 * theirs[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["K-FAC", "SP-NGD", "THOR"])
def test_the_convnet_is_trained_alike_on_both_frameworks(name, runs):
    """AdamW is left out: a bias before BatchNorm has a gradient of rounding alone, and it makes whole steps of that."""
    theirs, ours = (module.run(name, 7) for module in runs("convnet"))
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
    assert ours["accuracy"] == pytest.approx(theirs["accuracy"], abs=1.5 / 297)
