"""Names of models to files, for a conversation that changes its model."""

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from localspec.errors import LocalspecError

if TYPE_CHECKING:
    from localspec.session import SessionConfig


class NamedModels:
    """What the registry knows, and what `tune` found."""

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
        from localspec.cli.completion import model_names

        return model_names("")

    def tune(self, config: "SessionConfig", seconds: float | None) -> "SessionConfig":
        """Find better settings in a process of its own, which has the machine to itself."""
        from localspec.cli.talk import talk
        from localspec.session.profile import with_profile

        command = [sys.executable, "-m", "localspec", "tune", str(config.model)]
        if config.n_ctx is not None:
            command += ["--ctx", str(config.n_ctx)]
        if seconds is not None:
            command += ["--budget", f"{seconds:g}"]
        if subprocess.run(command, check=False).returncode != 0:
            raise LocalspecError("nothing was tuned: the settings are as they were")
        return with_profile(config, frozenset(), talk)
