"""What `.venv` was made from, kept inside it, so that a second set-up sees that nothing changed.

Each step that is done is written down, so that a set-up that was stopped goes on where it was.
A `.venv` without a stamp is not ours or not whole, and is made anew.
"""

import hashlib
import json
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from _setup.plan import Backend

NAME = "localspec-setup.json"


@dataclass(frozen=True, slots=True)
class Stamp:
    """`backend` and `cuda_arch` are what the user asked for once and need not repeat."""

    checkout: str
    python: str
    engine: str
    project: str
    dev: bool = False
    backend: Backend | Literal["auto"] | None = None
    cuda_arch: str | None = None

    def serves(self, wanted: "Stamp") -> bool:
        """Is a `.venv` with this stamp what is wanted? One with dev tools does for one without."""
        return (
            self.venv_serves(wanted)
            and self.engine == wanted.engine
            and (self.project == wanted.project and self.dev >= wanted.dev)
        )

    def venv_serves(self, wanted: "Stamp") -> bool:
        """The scripts in a `.venv` name its place and its Python; neither can change under them."""
        return (self.checkout, self.python) == (wanted.checkout, wanted.python)


def read(venv: Path) -> Stamp | None:
    """None where there is no stamp that this version of the script understands."""
    try:
        return Stamp(**json.loads((venv / NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write(venv: Path, stamp: Stamp) -> None:
    """Written to the side and renamed, so that a stamp is never half a stamp."""
    side = venv / f"{NAME}.new"
    side.write_text(json.dumps(asdict(stamp), indent=2) + "\n", encoding="utf-8")
    side.replace(venv / NAME)


def project_digest(pyproject_text: str, *pins: str) -> str:
    """Changes with what pip reads of pyproject.toml, not with the settings of our tools."""
    parsed = tomllib.loads(pyproject_text)
    read_by_pip = [parsed.get(table) for table in ("build-system", "project")]
    read_by_pip += [parsed.get("tool", {}).get("hatch"), *pins]
    return hashlib.sha256(json.dumps(read_by_pip, sort_keys=True).encode()).hexdigest()[:16]
