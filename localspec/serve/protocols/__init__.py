"""The protocols that the server speaks: each reads a body into one order, and writes one answer."""
