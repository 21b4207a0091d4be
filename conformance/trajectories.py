"""Level 4: the character GPT, trained by each optimizer, against golden losses and against the other backends.

The text is the Apache licence, which does not change with the Python version; weights, batches, probes and sampled
targets come from the seed. A loss may differ from the golden one, worked in float64, by 1e-4 relative in the first 50
steps and by 1e-2 up to step 200: rounding moves a sampled target across a class boundary now and then, and from there
on the runs are two samples of the same curve.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from hessiod.backends.contract import Backend
from hessiod.backends.gpt.config import RunConfig
from hessiod.backends.gpt.corpus import Corpus, from_bytes
from hessiod.backends.gpt.weights import initial_weights
from hessiod.conformance.case import FAIL, PASS, UNSUPPORTED, Case

STEPS: Mapping[str, int] = {
    "sophia-g": 200,
    "sophia-h": 50,
    "adahessian": 50,
    "apollo": 50,
    "diagonal-newton": 50,
    "adamw": 50,
    "sgd": 50,
}
BUDGETS: Mapping[int, float] = {50: 1e-4, 200: 1e-2}
FLOAT32_ULP = 2.0**-23


def corpus(context: int) -> Corpus:
    """The text that level 4 trains on."""
    text = files("hessiod.conformance.golden").joinpath("apache-2.0.txt").read_bytes()
    return from_bytes(text, "the Apache licence", context)


@cache
def golden() -> Mapping[str, np.ndarray]:
    """The golden losses by optimizer."""
    document = json.loads(files("hessiod.conformance.golden").joinpath("gpt.json").read_text())
    return {name: np.array(losses) for name, losses in document["losses"].items()}


def losses(backend: Backend, optimizer: str, steps: int, **options: object) -> np.ndarray:
    """The losses of a run."""
    config = RunConfig(optimizer=optimizer)
    trainer = backend.trainer(config=config, weights=initial_weights(config.model, config.seed), **options)
    text, context = corpus(config.model.context), config.model.context
    found = []
    for step in range(steps):
        inputs, targets = text.batch(step, seed=config.seed, rows=config.batch, context=context)
        found.append(trainer.step(inputs, targets).loss)
    return np.array(found)


def compare(
    identity: str, row: Mapping[str, Any], found: np.ndarray, expected: np.ndarray, against: str
) -> Iterator[Case]:
    """One row for each budget."""
    relative = np.abs(found - expected) / np.abs(expected)
    for steps, budget in BUDGETS.items():
        if steps > len(found):
            continue
        worst = float(np.max(relative[:steps]))
        at = int(np.argmax(relative[:steps])) + 1
        yield Case(
            f"{identity}/{against}/{steps}",
            **row,
            worst_ulp=worst / FLOAT32_ULP,
            budget_ulp=budget / FLOAT32_ULP,
            verdict=PASS if worst <= budget else FAIL,
            why=f"loss within {budget:g} relative of {against} over {steps} steps; worst {worst:.1e} at step {at}",
        )


class Trajectories:
    """Level 4 over several backends; remembers the first one's losses, to compare the others with."""

    def __init__(self) -> None:
        self.first: dict[str, tuple[str, np.ndarray]] = {}

    def run(self, backend: Backend) -> Iterator[Case]:
        """Level 4 of a backend."""
        for optimizer, steps in STEPS.items():
            identity = f"L4/gpt.{optimizer}/{backend.name}"
            row: dict[str, Any] = dict(
                level="L4", rule=optimizer, backend=backend.name, device=backend.devices()[0], dtype="float32"
            )
            blank: dict[str, Any] = dict(worst_ulp=None, budget_ulp=None)
            if optimizer not in backend.optimizers:
                why = f"the backend has no optimizer {optimizer!r}"
                yield Case(f"{identity}/golden/50", **row, **blank, verdict=UNSUPPORTED, why=why)
                continue
            try:
                found = losses(backend, optimizer, steps)
            except Exception as error:  # whatever a backend raises is a row, not the end of the suite
                why = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
                yield Case(f"{identity}/golden/50", **row, **blank, verdict=FAIL, why=why)
                continue
            yield from compare(identity, row, found, golden()[optimizer], "golden")
            if optimizer in self.first:
                name, reference = self.first[optimizer]
                yield from compare(identity, row, found, reference, name)
            else:
                self.first[optimizer] = (backend.name, found)
