"""The lock file of pulled models, one JSON document: revision, SHA-256, size and place of files.

Beside it: when each model was last used, which `list` shows. Failing to write that does no harm.

`pulled_files` finds those whose folder has moved: HF_HOME set anew, or a cache copied to another
disk. A path of the cache ends in `models--owner--repo/snapshots/COMMIT/FILE`, wherever the cache
is; one of localspec's own folder is found again in the same way.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from localspec import paths
from localspec.errors import UserError
from localspec.store import Kept, in_turn, write_text

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Pulled:
    """One pulled file; `fetched` is false if another program had downloaded it.

    `reference` pulls it again. While only a part is here `sha256` is None, `path` is its future
    place and `partial` the part's.
    """

    reference: str
    file: str
    path: str
    n_bytes: int | None
    revision: str | None
    sha256: str | None
    blocks: str | None
    fetched: bool
    pulled_at: str
    name: str | None = None
    """Of the catalog, if it was pulled by name."""
    partial: str | None = None

    @classmethod
    def of(cls, entry: dict[str, Any]) -> Self:
        values: dict[str, Any] = {field.name: entry.get(field.name) for field in fields(cls)}
        return cls(**values)

    @property
    def is_whole(self) -> bool:
        return self.sha256 is not None


def pulled() -> list[Pulled]:
    """All pulled files, the latest last. UserError if the lock file is damaged."""
    path = _path()
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return [Pulled.of(entry) for entry in document["files"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} cannot be read ({error}): move it away; pull then finds the files again"
        ) from error


def record(entry: Pulled) -> None:
    """Add an entry, in place of an older one of the same path."""
    _update(lambda files: [*(file for file in files if file.path != entry.path), entry])


def forget(path: str) -> None:
    """Remove the entry of a path."""
    _update(lambda files: [file for file in files if file.path != path])


def _update(change: Callable[[list[Pulled]], list[Pulled]]) -> None:
    with in_turn(_path().with_suffix(".lock")):  # two that pull do not lose each other's entry
        files = [asdict(file) for file in change(pulled())]
        write_text(_path(), json.dumps({"format": FORMAT, "files": files}, indent=1) + "\n")


def _path() -> Path:
    return paths.data_dir() / "models.lock.json"


def mark_used(path: Path) -> None:
    """Note that the model at `path` is used now."""
    with suppress(OSError):
        now = datetime.now(UTC).isoformat(timespec="seconds")
        _used().save(last_used() | {str(path): now})


def last_used() -> dict[str, str]:
    """Times in ISO 8601 by path; empty where nothing is known."""
    return _used().load() or {}


def _used() -> Kept[dict[str, str]]:
    path = paths.data_dir() / "last-used.json"
    return Kept(path, lambda times: {str(name): str(time) for name, time in times.items()}, dict)


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
