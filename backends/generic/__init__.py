"""Training for a backend that has kernels and derivatives, and no optimizer classes of its own.

================  ==============================================================
``networks``      the GPT and the perceptron, written with the namespace
``optimizer``     a rule, its state, and curvature from the backend's autodiff
``trainer``       both as a :class:`hessiod.backends.training.trainer.Trainer`
================  ==============================================================

With these a backend that fills in the namespace and :class:`hessiod.backends.contract.Autodiff` trains every problem
of the conformance suite with every optimizer; a framework's own optimizer classes come later.
"""

from hessiod.backends.generic.optimizer import OPTIMIZERS
from hessiod.backends.generic.trainer import GenericTrainer

__all__ = ["OPTIMIZERS", "GenericTrainer"]
