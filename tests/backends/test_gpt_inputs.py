"""What every framework's run starts from: settings, text, batches and initial weights."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from hessiod.backends.gpt.config import SETTINGS, GPTConfig
from hessiod.backends.gpt.corpus import from_bytes, from_file, python_documentation
from hessiod.backends.training.run import RunConfig
from hessiod.backends.training.weights import initial_weights
from hessiod.core import InvalidArgument

CONTEXT = 8


def refusal(call, *arguments, **options):
    with pytest.raises(InvalidArgument) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_empty_text_is_refused(tmp_path):
    (tmp_path / "t").write_bytes(b"")
    assert refusal(from_file, tmp_path / "t", CONTEXT) == (
        f"text: found an empty text in {tmp_path / 't'}, expected at least 9 bytes (one context and its next byte); "
        "give a longer text"
    )


def test_a_text_shorter_than_a_context_and_its_next_byte_is_refused(tmp_path):
    (tmp_path / "t").write_bytes(b"12345678")
    assert "text: found 8 bytes in" in refusal(from_file, tmp_path / "t", CONTEXT)


def test_a_text_that_cannot_be_read_is_refused(tmp_path):
    assert "text: cannot read" in refusal(from_file, tmp_path / "none", CONTEXT)
    assert "text: cannot read" in refusal(from_file, tmp_path, CONTEXT)


def test_the_shortest_text_yields_its_only_window(tmp_path):
    (tmp_path / "t").write_bytes(b"123456789")
    inputs, targets = from_file(tmp_path / "t", CONTEXT).batch(0, seed=0, rows=2)
    assert bytes(inputs[1].astype(np.uint8)) == b"12345678"
    assert bytes(targets[1].astype(np.uint8)) == b"23456789"


def test_batches_are_windows_of_the_text_with_the_next_byte_as_target():
    text = bytes(range(256)) * 3
    inputs, targets = from_bytes(text, "here", 16).batch(5, seed=1, rows=64)
    assert inputs.shape == targets.shape == (64, 16)
    assert inputs.dtype == targets.dtype == np.int32
    np.testing.assert_array_equal(targets, (inputs + 1) % 256)
    np.testing.assert_array_equal(np.diff(inputs, axis=1) % 256, 1)
    assert len(set(inputs[:, 0])) > 32


def test_every_window_can_be_drawn():
    corpus = from_bytes(bytes(range(20)), "here", 16)
    inputs, _ = corpus.batch(0, seed=0, rows=200)
    assert set(inputs[:, 0]) == {0, 1, 2, 3}


def test_a_batch_is_a_function_of_seed_and_step():
    corpus = python_documentation(64)
    first, again, later, other = (
        corpus.batch(step, seed=seed, rows=8)[0] for step, seed in ((3, 1), (3, 1), (4, 1), (3, 2))
    )
    np.testing.assert_array_equal(first, again)
    assert (first != later).any()
    assert (first != other).any()


def test_the_default_text_is_some_hundred_kilobytes_of_english():
    corpus = python_documentation(64)
    assert len(corpus.data) > 400_000
    assert b"the" in corpus.data.tobytes()


def test_initial_weights_have_gpt2s_spread_and_every_name():
    config = GPTConfig()
    weights = initial_weights(config, seed=3)
    assert {name: array.shape for name, array in weights.items()} == config.shapes
    for name, array in weights.items():
        assert array.dtype == np.float32
        if "norm" in name:
            assert (array == (1.0 if name.endswith("weight") else 0.0)).all()
            continue
        spread = 0.02 / (2 if name.endswith(("merge.weight", "contract.weight")) else 1)  # sqrt(2 * layers) = 2
        assert abs(array.std() / spread - 1) < 5 / (2 * array.size) ** 0.5
        assert abs(array.mean()) < 5 * spread / array.size**0.5


def test_no_two_initial_weights_share_their_numbers():
    weights = initial_weights(GPTConfig(), seed=3)
    matrices = [array.ravel()[:96] for name, array in weights.items() if "norm" not in name]
    correlations = np.corrcoef(matrices) - np.eye(len(matrices))
    assert np.abs(correlations).max() < 5 / 96**0.5
    assert (initial_weights(GPTConfig(), seed=4)["head.weight"] != weights["head.weight"]).any()


@pytest.mark.parametrize(
    ("settings", "start"),
    [
        (
            dict(optimizer="lion"),
            f"optimizer: found 'lion', expected one of {', '.join(SETTINGS)}",
        ),
        (dict(optimizer="sgd", batch=0), "batch: found 0"),
        (dict(optimizer="sgd", seed=-1), "seed: found -1"),
        (dict(optimizer="sgd", seed=2**64), "seed: found 18446744073709551616"),
    ],
)
def test_bad_settings_of_a_run_are_refused_by_name(settings, start):
    assert refusal(RunConfig, **settings).startswith(start)


def test_the_warm_up_is_linear_then_constant():
    config = RunConfig("sgd", warmup=4)
    assert [config.factor(step) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert RunConfig("sgd", warmup=0).factor(0) == 1.0


def test_a_runs_settings_can_be_written_as_json():
    document = json.loads(json.dumps(asdict(RunConfig("sophia-g", seed=2**64 - 1))))
    assert document["seed"] == 2**64 - 1
    assert document["model"]["context"] == 64
