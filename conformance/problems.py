"""What level 4 trains: the character GPT and the digits perceptron, each on data that ships with the suite.

The text is the Apache licence, which does not change with the Python version; the images are the first 512 of
scikit-learn's digits. Weights, batches, probes and sampled targets come from the seed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Protocol

import numpy as np

from hessiod.backends.contract import Backend
from hessiod.backends.digits.config import MLPConfig
from hessiod.backends.digits.data import from_text
from hessiod.backends.gpt.config import SETTINGS, GPTConfig
from hessiod.backends.gpt.corpus import from_bytes
from hessiod.backends.training.model import Model
from hessiod.backends.training.run import RunConfig
from hessiod.backends.training.weights import initial_weights


class Data(Protocol):
    """A text or images, cut into batches."""

    def batch(self, step: int, *, seed: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets of a step: a pure function of seed and step."""


def shipped(name: str) -> bytes:
    """A file of the suite."""
    return files("hessiod.conformance.golden").joinpath(name).read_bytes()


@dataclass(frozen=True)
class Problem:
    """A network, its data, each optimizer's settings, and the runs that are longer than 50 steps."""

    name: str
    model: Model
    read: Callable[[], Data]
    batch: int
    settings: Mapping[str, Mapping[str, Any]]
    longer: Mapping[str, int] = field(default_factory=dict)

    @property
    def steps(self) -> dict[str, int]:
        """The length of each optimizer's run."""
        return {optimizer: self.longer.get(optimizer, 50) for optimizer in self.settings}

    @property
    def golden_file(self) -> str:
        """Where the golden losses are, beside the data."""
        return f"{self.name}.json"

    def config(self, optimizer: str) -> RunConfig:
        """The run that is compared."""
        given = dict(self.settings[optimizer])
        return RunConfig(optimizer, batch=self.batch, lr=given.pop("lr"), hyperparameters=given, model=self.model)

    def losses(self, backend: Backend, optimizer: str, **options: object) -> np.ndarray:
        """The losses of a run."""
        config, data = self.config(optimizer), self.read()
        trainer = backend.trainer(config=config, weights=initial_weights(config.model, config.seed), **options)
        batches = (data.batch(step, seed=config.seed, rows=config.batch) for step in range(self.steps[optimizer]))
        return np.array([trainer.step(inputs, targets).loss for inputs, targets in batches])


GPT = Problem(
    "gpt",
    GPTConfig(),
    lambda: from_bytes(shipped("apache-2.0.txt"), "the Apache licence", GPTConfig().context),
    batch=8,
    settings=SETTINGS,
    longer={"sophia-g": 200},
)
DIGITS = Problem(
    "digits",
    MLPConfig(),
    lambda: from_text(shipped("digits.txt").decode()),
    batch=128,
    # Not the tuned ones: those are the fastest, and some multiply a rounding error a thousandfold within 50 steps.
    settings={
        "sophia-g": {"lr": 0.005, "rho": 0.5, "weight_decay": 0.1},
        "sophia-h": {"lr": 0.005, "rho": 0.05, "weight_decay": 0.1},
        "adahessian": {"lr": 0.1, "eps": 0.01},
        "apollo": {"lr": 0.2, "sigma": 0.2, "warmup": 0},
        "apollow": {"lr": 0.2, "sigma": 0.2, "warmup": 0, "weight_decay": 0.025},
        "diagonal-newton": {"lr": 0.05, "damping": 0.1},
        "adamw": {"lr": 0.01, "weight_decay": 0.1},
        "sgd": {"lr": 0.5, "weight_decay": 1e-5},
        "momentum": {"lr": 0.1, "momentum": 0.9},
        "nesterov": {"lr": 0.1, "momentum": 0.9, "nesterov": True},
        # Statistics and inverses are due on both sides of level 5's cut.
        "kfac": {"lr": 0.05, "damping": 0.1, "factor_every": 2, "inverse_every": 4},
        "spngd": {"lr": 0.05, "damping": 0.1},
        "thor": {"lr": 0.05, "damping": 0.1, "factor_every": 3, "block_size": 32},
    },
)
PROBLEMS = (GPT, DIGITS)
"""Those with golden losses."""


@cache
def golden() -> Mapping[str, np.ndarray]:
    """The golden losses by problem and optimizer: "gpt.adamw"."""
    documents = {problem.name: json.loads(shipped(problem.golden_file)) for problem in PROBLEMS}
    return {
        f"{name}.{optimizer}": np.array(losses)
        for name, document in documents.items()
        for optimizer, losses in document["losses"].items()
    }
