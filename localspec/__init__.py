"""How fast a language model should run here, how to make it so, and where the rest went."""

__version__ = "0.1.0"
