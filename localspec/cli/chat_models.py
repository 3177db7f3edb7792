"""Names of models to files, for a conversation that changes its model."""

from pathlib import Path
from typing import TYPE_CHECKING

from localspec.errors import UserError

if TYPE_CHECKING:
    from localspec.session import SessionConfig


class NamedModels:
    """What the registry knows."""

    def resolve(self, name: str) -> Path:
        """The model's file. Raises UserError or ModelError."""
        from localspec.registry.resolve import resolve

        return resolve(name)

    def draft_of(self, name: str) -> Path | None:
        """The draft that goes with a named model, if it is here."""
        from localspec.registry.resolve import draft_of

        return draft_of(name)

    def names(self) -> list[str]:
        """Models that have names."""
        from localspec.registry.catalog import load_catalog

        return sorted(load_catalog())

    def tune(self, config: "SessionConfig") -> "SessionConfig":
        """Find better settings for this machine. Raises LocalspecError."""
        raise UserError(f"leave, and run: localspec tune {config.model}")
