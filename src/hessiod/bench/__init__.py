"""Measurements of speed and memory: ratios in one process, medians of interleaved rounds."""
