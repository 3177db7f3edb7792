"""Draft cheaply, verify in one pass of the target, keep what stands."""
