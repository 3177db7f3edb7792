"""Evaluate tokens, and turn logits into tokens and tokens into text."""

from localspec.engine.environment import settle_environment

settle_environment()  # before the engine, NumPy and any thread that loads
