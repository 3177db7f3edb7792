"""Evaluate tokens, and turn logits into tokens and tokens into text."""
