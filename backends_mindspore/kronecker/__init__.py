"""K-FAC, SP-NGD and THOR on MindSpore: one optimizer around a Kronecker preconditioner, three policies.

==================  ==========================================================================
``layers``          what of a Cell is covered, the sizes of its factors, its inverses on the host
``discover``        which layers a net has, and what is left to a first-order rule
``rows``            rows in and rows out of layers, in the graph
``taps``            Cells whose derivatives are the statistics, and the net while it is traced with them
``blocks``          natural gradients in the graph
``states``          the factors, inverses and counters of layers as Parameters
``optimizer``       the optimizer that they make together
``step``            the training step: one graph without statistics, one that takes them
``mixup``           running mixup, of SP-NGD's recipe
``kfac``...         the classes that users import
==================  ==========================================================================
"""
