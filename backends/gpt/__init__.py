"""The character GPT that ``hessiod train`` trains and the conformance suite follows, as far as it is framework-free.

Each framework builds the network natively from one :class:`~hessiod.backends.gpt.config.GPTConfig`; the initial
weights, the batches and the loop are here, so that every run of a seed sees the same numbers.
"""
