"""Model names for the shell: of the catalog, of what was pulled and of what is found on this disk.

A shell waits for each key, so nothing slow is imported and a broken file completes to nothing.
"""

from collections.abc import Iterator

from localspec.errors import LocalspecError


def model_names(incomplete: str) -> list[str]:
    """Names that begin so; what is found in other programs' folders only after their prefix."""
    try:
        return sorted({name for name in _names(incomplete) if name.startswith(incomplete)})
    except (LocalspecError, OSError):
        return []


def pulled_names(incomplete: str) -> list[str]:
    """The same of what localspec has pulled: for `remove` and `verify`."""
    try:
        return sorted({name for name in _pulled() if name.startswith(incomplete)})
    except (LocalspecError, OSError):
        return []


def _names(incomplete: str) -> Iterator[str]:
    from localspec.registry.catalog import load_catalog
    from localspec.registry.other_apps import ORIGINS, found_models

    for entry in load_catalog().values():
        yield entry.name
        yield from entry.aliases
    yield from _pulled()
    if incomplete.startswith(("hf:", *ORIGINS)):
        yield from (model.name for model in found_models())


def _pulled() -> Iterator[str]:
    from localspec.registry.manifest import pulled

    for file in pulled():
        yield file.name or file.reference
