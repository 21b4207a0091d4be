"""The digits: as scikit-learn has them, as the suite ships them, and cut into batches."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from hessiod.backends.digits.config import MLPConfig
from hessiod.backends.digits.data import LEVELS, as_text, from_levels, from_text
from hessiod.backends.gpt.config import GPTConfig
from hessiod.backends.training.weights import initial_weights
from hessiod.conformance.problems import DIGITS
from hessiod.core import InvalidArgument


@pytest.fixture(scope="module")
def everything():
    return load_digits(return_X_y=True)


def test_the_suites_images_are_scikit_learns_first_512(everything):
    levels, labels = everything
    shipped = DIGITS.read()
    np.testing.assert_array_equal((shipped.images + 1) * 8, levels[:512])
    np.testing.assert_array_equal(shipped.labels, labels[:512])


def test_text_holds_every_image_exactly(everything):
    levels, labels = everything
    again = from_text("# a comment\n" + as_text(levels, labels))
    np.testing.assert_array_equal(again.images, from_levels(levels, labels).images)
    np.testing.assert_array_equal(again.labels, labels)
    assert again.images.dtype == np.float32
    assert again.labels.dtype == np.int32


@pytest.mark.parametrize("line", ["x " + "0" * 64, "3 " + "0" * 63, "3 " + "0" * 63 + "H", "10 " + "0" * 64])
def test_a_line_that_is_no_image_is_refused(line):
    with pytest.raises(InvalidArgument, match="digits: image 1 is"):
        from_text(f"7 {'0' * 64}\n{line}")


def test_a_batch_is_a_function_of_seed_and_step_with_labels_that_belong():
    digits = from_text("".join(f"{n} {LEVELS[n] * 64}\n" for n in range(10)))
    images, labels = digits.batch(3, seed=1, rows=200)
    np.testing.assert_array_equal((images[:, 0] + 1) * 8, labels)
    assert set(labels) == set(range(10))
    np.testing.assert_array_equal(digits.batch(3, seed=1, rows=200)[1], labels)
    assert (digits.batch(4, seed=1, rows=200)[1] != labels).any()
    assert (digits.batch(3, seed=2, rows=200)[1] != labels).any()


def test_initial_weights_have_a_variance_of_one_over_the_inputs():
    model = MLPConfig(width=256)
    weights = initial_weights(model, seed=1)
    assert {name: array.shape for name, array in weights.items()} == model.shapes
    for name, array in weights.items():
        if name.endswith("bias"):
            assert not array.any()
        else:
            assert abs(array.std() * array.shape[1] ** 0.5 - 1) < 5 / (2 * array.size) ** 0.5


def test_both_problems_train_with_the_same_optimizers():
    assert set(MLPConfig().settings) == set(GPTConfig().settings) == set(DIGITS.settings)
