"""Sampling that a model's file recommends."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from localspec.gguf.cursor import shown
from localspec.sampling_fields import SAMPLING


@dataclass(frozen=True, slots=True)
class Recommended:
    """Sampling by the names of `Sampling` that a file recommends, and one sentence about it."""

    values: Mapping[str, float]
    note: str | None = None


_KEYS = {each.file_key: each.name for each in SAMPLING.values() if each.file_key}
"""Names in files and ours."""


def recommended_sampling(given: Mapping[str, Any]) -> Recommended:
    """What is usable of a file's `general.sampling` keys."""
    values: dict[str, float] = {}
    refused: list[str] = []
    for key, name in _KEYS.items():
        value = given.get(key)
        if name == "top_k" and isinstance(value, int) and value < 0:
            value = 0  # all of them, as llama.cpp takes it
        if value is not None and not SAMPLING[name].accepts(value):
            refused.append(f"{key} {shown(str(value))}")
        elif value is not None:
            values[name] = round(value, 6)  # float32 in files
    parts = [f"{name.replace('_', '-')} {value:g}" for name, value in values.items()]
    notes = [f"the model's file recommends {', '.join(parts)}: used where no option says otherwise"]
    refusal = f"the file's sampling of {', '.join(refused)} makes no sense and is ignored"
    notes = (notes if values else []) + ([refusal] if refused else [])
    return Recommended(values, "; ".join(notes) or None)
