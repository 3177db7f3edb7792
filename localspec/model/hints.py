"""What a header says of how a model is meant to be used: sampling, and how far positions reach."""

from typing import Any

from localspec.gguf.header import Header

SCALINGS = ("yarn", "linear", "longrope")
MAX_FACTOR = 1024
"""Larger factors of position scaling are mistakes."""


def values_below(header: Header, prefix: str) -> dict[str, Any]:
    """Values by the ends of their keys; nobody has checked them."""
    pairs = header.metadata.items()
    return {key.removeprefix(prefix): value for key, value in pairs if key.startswith(prefix)}


def scaled_context(header: Header) -> int | None:
    """The context in tokens that position scaling reaches, which libllama applies unasked."""
    scaling = values_below(header, header.own_key("rope.scaling."))
    factor, original = scaling.get("factor"), scaling.get("original_context_length")
    if scaling.get("type") not in SCALINGS:
        return None
    if not isinstance(factor, float) or not isinstance(original, int):
        return None
    return int(factor * original) if 1 < factor < MAX_FACTOR and original > 0 else None
