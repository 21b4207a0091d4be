"""MindSpore: any rule as an ``nn.Optimizer``, curvature from its traced autodiff, the character GPT.

=====================  ==================================================================
``namespace``          array functions for core/
``adapter``            one generic adapter from any rule to ``nn.Optimizer``
``schedule``           learning rates in double precision
``curvature``          Gauss-Newton-Bartlett and Hutchinson estimates as traced Cells
``parallel``           several processes with a batch each
``processes``          several of them, as the conformance suite starts them
``derivatives``        second derivatives of unmodified nets
``second_order``       when curvature is due, and ``TrainStep``
``optimizers``         the classes that users import, each a rule and a signature
``gpt``, ``mlp``       the character GPT and the digits perceptron as Cells; ``trainer`` trains them
``callbacks``          for Model.train: diagnostics to a logger, checkpoints; ``logs`` the numbers
``checkpoint``         nets and optimizers as checkpoint files see them
``native``             MindSpore's own files, for conversion
``backend``            the object behind the entry point
``backend_card``       what can be said about it before the framework is loaded
=====================  ==================================================================
"""
