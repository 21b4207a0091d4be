"""A training run as far as it is framework-free: what a problem is, the run's settings, initial weights, the trainer.

==============  ===========================================================================
``model``       what a network tells: parameter names and shapes, their start, settings
``run``         everything that decides the numbers of a run
``weights``     initial weights, the same bits on every framework
``trainer``     what a framework supplies
==============  ===========================================================================

:mod:`hessiod.backends.gpt` and :mod:`hessiod.backends.digits` are the two problems.
"""
