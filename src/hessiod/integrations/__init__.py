"""Training loops that people already run: one file each for Hugging Face's Trainer, Accelerate and Lightning.

Each attaches a :class:`~hessiod.torch.CurvatureHook` to the model that is trained, tells it of steps that were skipped,
and passes on diagnostics. None is imported unless it is used: ``from hessiod.integrations.lightning import Curvature``.
"""
