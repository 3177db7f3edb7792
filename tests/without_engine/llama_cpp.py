"""Stands before the engine in tests that are not marked `engine`: see conftest.py."""

raise ModuleNotFoundError("the engine is hidden from tests that are not marked `engine`")
