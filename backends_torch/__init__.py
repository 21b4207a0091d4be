"""PyTorch: any rule as a ``torch.optim.Optimizer``, curvature from its autograd, two networks.

================  ==========================================================================
``namespace``     array functions for core/
``adapter``       one generic adapter from any rule to ``torch.optim.Optimizer``
``curvature``     Gauss-Newton-Bartlett and Hutchinson estimates, accumulated until a step
``second_order``  when curvature is due, how it is given, and what a GradScaler may skip
``hook``          curvature in loops that somebody else wrote
``logs``          diagnostics as numbers, for any logger and for TensorBoard
``precision``     half-precision parameters with state in float32
``states``        what is kept for each parameter, and the check of a ``state_dict``
``diagnostics``   shares and quantiles of the state, on demand
``fast``          how a step reaches memory: generated C++, Triton (``triton_sweep``), or op by op
``op_by_op``      the last of these
``clipping``      the norm of all gradients, and what it is held to
``capturable``    steps that a CUDA graph can hold
``optimizers``    the classes that users import, each a rule and a signature
``gpt``, ``mlp``  the character GPT and the digits perceptron as ``torch.nn`` modules
``trainer``       the loop that trains them
``processes``     several of them, as the conformance suite starts them
``checkpoint``    models and optimizers as checkpoint files see them
``native``        torch's own files, for conversion
``backend``       the object behind the entry point
``backend_card``  what can be said about it before the framework is loaded
================  ==========================================================================
"""
