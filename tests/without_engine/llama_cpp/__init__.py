"""An engine that is installed and cannot be loaded: before the real one in tests not marked so."""

__version__ = "0.3.36"

raise ImportError("the engine is hidden from tests that are not marked `engine`")
