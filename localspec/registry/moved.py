"""Pulled files after their folder has moved: HF_HOME set anew, or a cache copied to another disk.

A path of the cache ends in `models--owner--repo/snapshots/COMMIT/FILE`, wherever the cache is; one
of localspec's own folder is found again in the same way.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from localspec import paths
from localspec.registry.manifest import Pulled, forget, pulled, record

OWN = "models"
"""Where files of other servers lie, below the data folder."""


def pulled_files() -> list[Pulled]:
    """All pulled files, those that have moved with their path of today."""
    return [_found_again(file) for file in pulled()]


def _found_again(file: Pulled) -> Pulled:
    """The same file; where it is not at its old place and at the new one, that is noted."""
    if not file.is_whole or Path(file.path).exists():
        return file
    place = next((place for place in _places(Path(file.path)) if place.exists()), None)
    if place is None:
        return file
    moved = replace(file, path=str(place))
    record(moved)
    forget(file.path)
    return moved


def _places(path: Path) -> Iterator[Path]:
    from localspec.registry.remote_file import cache_folder  # noqa: PLC0415 - few have moved

    for i, part in enumerate(path.parts):
        if part.startswith("models--"):
            yield cache_folder().joinpath(*path.parts[i:])
        if part == OWN:
            yield paths.data_dir().joinpath(*path.parts[i:])
