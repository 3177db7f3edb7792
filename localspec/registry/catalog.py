"""The models known by name: models.toml as shipped, and the user's own, which wins."""

import difflib
from collections.abc import Mapping
from pathlib import Path

from localspec import paths
from localspec.errors import UserError
from localspec.registry.schema import Entry, read_models

__all__ = ["STARTER", "Entry", "entry_of", "find", "load_catalog", "no_such_model"]

STARTER = "starter"

_PACKAGE = Path(__file__).parent.parent
_SHIPPED = (_PACKAGE / "models.toml", _PACKAGE.parent / "models.toml")
"""In the wheel, and in a checkout."""


def load_catalog() -> dict[str, Entry]:
    """All entries by name. UserError where a file is not in the form of models.toml."""
    shipped = next(path for path in _SHIPPED if path.exists())
    own = paths.config_dir() / "models.toml"
    entries = read_models(shipped)
    if own.exists():
        entries |= read_models(own)
    for entry in entries.values():
        if entry.draft is not None and entry.draft not in entries:
            raise UserError(
                f"[models.{entry.name}] of {own} has the draft {entry.draft!r}, which is no entry:"
                " name one, or add it"
            )
    return entries


def entry_of(name: str) -> Entry | None:
    """The entry of that name, whatever its case, or alias; entries that came last win."""
    catalog = load_catalog()
    if name in catalog:
        return catalog[name]
    entries = reversed(list(catalog.values()))
    wanted = name.casefold()
    known = ((known, entry) for entry in entries for known in (entry.name, *entry.aliases))
    return next((entry for text, entry in known if text.casefold() == wanted), None)


def find(name: str) -> Entry:
    """The same; an unknown name is an error that suggests the nearest."""
    entry = entry_of(name)
    if entry is None:
        raise no_such_model(name, {})
    return entry


def no_such_model(name: str, others: Mapping[str, str]) -> UserError:
    """The error for a name that is nobody's; `others`: names beside the catalog by spelling."""
    catalog = load_catalog()
    known = {alias for entry in catalog.values() for alias in (entry.name, *entry.aliases)}
    spelled = {text.casefold(): name for text, name in others.items()}
    spelled |= {text.casefold(): text for text in sorted(known)}
    near = difflib.get_close_matches(name.casefold(), spelled, n=1)
    hint = (
        f"did you mean {spelled[near[0]]!r}?"
        if near
        else f"`localspec list --known` shows all {len(catalog)} names, {STARTER!r} is one"
    )
    return UserError(f"no model is called {name!r} and no such file is here: {hint}")
