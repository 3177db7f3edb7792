"""Decoding, plain and speculative: drafters, costs, chances, and the policy that joins them."""
