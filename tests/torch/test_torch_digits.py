"""Every optimizer on scikit-learn's digits, with the settings that the repository records."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from hessiod.backends import load
from hessiod.backends.digits.config import SETTINGS, MLPConfig
from hessiod.backends.digits.data import from_levels
from hessiod.backends.training.run import RunConfig
from hessiod.backends.training.weights import initial_weights


@pytest.fixture(scope="module")
def halves():
    """1437 images to train on and 360 to test on, those of benchmarks/digits.py."""
    digits = from_levels(*load_digits(return_X_y=True))
    rows = np.arange(len(digits.labels))
    training, test = train_test_split(rows, test_size=360, stratify=digits.labels, random_state=0)
    return digits.some(training), digits.some(test)


@pytest.mark.parametrize("optimizer", sorted(SETTINGS))
def test_it_reaches_97_percent_of_unseen_digits(optimizer, halves):
    training, test = halves
    config = RunConfig(optimizer, batch=128, model=MLPConfig())
    trainer = load("torch").trainer(config=config, weights=initial_weights(config.model, config.seed))
    for step in range(300):
        trainer.step(*training.batch(step, seed=config.seed, rows=config.batch))
    right = trainer.logits(test.images).argmax(1) == test.labels
    assert right.mean() >= 0.97
