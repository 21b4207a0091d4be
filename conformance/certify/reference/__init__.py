"""The cases once more, from their definitions, over jax.numpy in float64: one of the golden values' two sources."""
