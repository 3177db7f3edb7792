"""Decoding, plain and speculative: one loop for one reply or many (see driver)."""
