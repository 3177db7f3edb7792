"""Facts of the models of a sweep, each header read once."""

from functools import cache
from pathlib import Path

from localspec.engine.preflight import checked_facts
from localspec.model.facts import ModelFacts


@cache
def facts_of(model: Path) -> ModelFacts:
    """Raises ModelError where the file is damaged or not a model that answers."""
    return checked_facts(model)
