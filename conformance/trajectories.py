"""Level 4: the character GPT, trained by each optimizer, against golden losses and against the other backends.

The text is the Apache licence, which does not change with the Python version; weights, batches, probes and sampled
targets come from the seed. A loss may differ from the golden one, worked in float64, by 1e-4 relative in the first 50
steps and by 1e-2 up to step 200: rounding moves a sampled target across a class boundary now and then, and from there
on the runs are two samples of the same curve.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from importlib.resources import files

import numpy as np
from numpy.typing import ArrayLike

from hessiod.backends.contract import Backend
from hessiod.backends.gpt.config import RunConfig
from hessiod.backends.gpt.corpus import Corpus, from_bytes
from hessiod.backends.gpt.weights import initial_weights
from hessiod.conformance.check import Check, Finding, identified

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


def trajectory_checks(backends: Sequence[Backend]) -> Iterator[Check]:
    """Level 4 of some backends: each against the golden losses, and against the first that has the optimizer."""
    for optimizer, steps in STEPS.items():
        able = [backend for backend in backends if optimizer in backend.optimizers]
        for backend in backends:
            identity = f"L4/gpt.{optimizer}/{backend.name}"
            fields = identified(backend, level="L4", rule=optimizer, dtype="float32")
            budgets = {str(count): budget for count, budget in BUDGETS.items() if count <= steps}
            yield Check(
                identity,
                **fields,
                kinds=tuple(f"golden/{count}" for count in budgets),
                run=partial(against_golden, backend, optimizer, steps),
                unsupported="" if backend in able else f"the backend has no optimizer {optimizer!r}",
            )
            if backend in able[1:]:
                yield Check(
                    f"{identity}/{able[0].name}",
                    **fields,
                    kinds=tuple(budgets),
                    run=partial(compare, against=able[0].name),
                    after=(identity, f"L4/gpt.{optimizer}/{able[0].name}"),
                )


def against_golden(backend: Backend, optimizer: str, steps: int) -> Iterator[Finding]:
    """A run's distance from the golden one; the first finding carries the losses."""
    found = losses(backend, optimizer, steps)
    rows = compare(found, golden()[optimizer], against="golden")
    for number, row in enumerate(rows):
        yield replace(row, kind=f"golden/{row.kind}", data=() if number else tuple(found.tolist()))


def compare(found: ArrayLike, expected: ArrayLike, *, against: str) -> Iterator[Finding]:
    """One finding for each budget."""
    found, expected = np.asarray(found), np.asarray(expected)
    relative = np.abs(found - expected) / np.abs(expected)
    for steps, budget in BUDGETS.items():
        if steps > len(found):
            continue
        worst = float(np.max(relative[:steps]))
        at = int(np.argmax(relative[:steps])) + 1
        why = f"loss within {budget:g} relative of {against} over {steps} steps; worst {worst:.1e} at step {at}"
        yield Finding(str(steps), worst <= budget, worst / FLOAT32_ULP, budget / FLOAT32_ULP, why)
