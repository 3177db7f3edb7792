"""Give back the disk of what localspec pulled, and of nothing else.

Revisions in the hub's cache can share a file's bytes, and other programs put files there: bytes go
with their last name, folders when they are empty.
"""

import os
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from localspec import paths
from localspec.errors import UserError
from localspec.gguf.hub_name import HUB, HubFile, HubName, bare_hub_name, hub_name_of
from localspec.gguf.reader import PART_NAME
from localspec.registry.catalog import named_entry, no_such_model
from localspec.registry.local_models import found_models, found_named
from localspec.registry.manifest import Pulled, forget, pulled_files
from localspec.registry.resolve import written_name
from localspec.registry.variants import Variant, in_folder, quantization_of, with_tag


@dataclass(frozen=True, slots=True)
class Removal:
    """One file to remove; `freed_bytes` 0 where its bytes have another name that stays."""

    file: Pulled
    freed_bytes: int
    paths: tuple[Path, ...]


def pulled_as(reference: str, *, with_adopted: bool = False) -> list[Pulled]:
    """The files that were pulled under a name, a reference or a path: all parts of each model.

    UserError where there are none, or another program has put them there (`with_adopted`: those
    count, too).
    """
    reference = written_name(reference)
    files, named = pulled_files(), _named(reference)
    chosen = [file for file in files if named(file)]
    if not chosen:
        raise _nothing_of(reference, "verify" if with_adopted else "remove")
    own = [file for file in chosen if file.fetched or with_adopted]
    if not own:
        raise UserError(
            f"{reference} was here before localspec: remove it with the program that brought it"
            f" ({chosen[0].path})"
        )
    return own


def planned_removals(files: Sequence[Pulled]) -> list[Removal]:
    """The effect of removing files together, without removing them."""
    going = {Path(file.path) for file in files}
    doomed = [_doomed(file, going) for file in files]
    n_names = Counter(_inode(place) for place in {place for places in doomed for place in places})
    counted = set[tuple[int, int]]()
    return [
        Removal(file, sum(_freed_bytes(place, n_names, counted) for place in places), places)
        for file, places in zip(files, doomed, strict=True)
    ]


def remove(removal: Removal) -> None:
    """Take a file away. Raises OSError where that is not allowed."""
    for path in removal.paths:
        path.unlink(missing_ok=True)
    _clear(Path(removal.file.path))
    forget(removal.file.path)


def _named(reference: str) -> Callable[[Pulled], bool]:
    entry, kind = named_entry(reference)
    hub = hub_name_of(reference) or bare_hub_name(reference)
    base = reference.partition("@")[0]

    def is_it(file: Pulled) -> bool:
        if hub is not None and _is_in(file, hub):
            return True
        if entry is not None and file.name == entry.name:
            return kind in (None, quantization_of(file.file))
        return base in (_first(file.reference), file.path, Path(file.file).name) or (
            file.reference == reference
        )

    return is_it


def _is_in(file: Pulled, wanted: HubName) -> bool:
    """Whether a file is of the hub's file or repository that a name means."""
    name = hub_name_of(_first(file.reference)) if file.reference.startswith(HUB) else None
    if not isinstance(name, HubFile) or name.repository.casefold() != wanted.repository.casefold():
        return False
    if isinstance(wanted, HubFile):
        return name.file == wanted.file and wanted.revision in (None, name.revision, file.revision)
    found = [Variant(quantization_of(name.file) or "", name.file, 0)]
    found = in_folder(found, wanted.folder) if wanted.folder else found
    return bool(with_tag(found, wanted.tag) if wanted.tag else found)


def _first(reference: str) -> str:
    """The reference of a model's first part, without a revision."""
    base = reference.partition("@")[0]
    folder, slash, name = base.rpartition("/")
    part = PART_NAME.fullmatch(name)
    return f"{folder}{slash}{part[1]}-00001-of-{part[3]}.gguf" if part else base


def _nothing_of(reference: str, verb: str) -> UserError:
    entry = named_entry(reference)[0]
    if entry is not None:
        where = f"the package {entry.package} carries it" if entry.package else "it was not pulled"
        return UserError(f"there is nothing of {reference} to {verb}: {where}")
    others = found_named(reference, found_models())
    if others:
        return UserError(
            f"{others[0].name} belongs to {others[0].origin}: {verb} it there ({others[0].path})"
        )
    if os.path.lexists(reference):
        return UserError(f"there is nothing of {reference} to {verb}: it was not pulled")
    names = [file.name or _first(file.reference) for file in pulled_files()]
    return no_such_model(reference, dict(zip(names, names, strict=True)))


def _doomed(file: Pulled, going: set[Path]) -> tuple[Path, ...]:
    """What goes with a file: its name, the part that came, and bytes that nothing else names."""
    path = Path(file.path)
    doomed = [path] if os.path.lexists(path) else []
    if file.partial and os.path.lexists(file.partial):
        doomed.append(Path(file.partial))
    blob = _blob_of(path) or _second_copy(file)
    if blob is not None:
        snapshots = os.walk(blob.parent.parent / "snapshots")
        links = {Path(place) / name for place, _, names in snapshots for name in names}
        if not any(_blob_of(link) == blob for link in links - going - {path}):
            doomed.append(blob)
    return tuple(doomed)


def _inode(place: Path) -> tuple[int, int]:
    status = place.lstat()
    return status.st_dev, status.st_ino


def _freed_bytes(
    place: Path, n_names: Counter[tuple[int, int]], counted: set[tuple[int, int]]
) -> int:
    """Once a file, and only if its last name goes; a link has none."""
    status, inode = place.lstat(), _inode(place)
    if not stat.S_ISREG(status.st_mode) or inode in counted or n_names[inode] < status.st_nlink:
        return 0
    counted.add(inode)
    return status.st_size


def _blob_of(path: Path) -> Path | None:
    """Where a link of the hub's cache leads, one step: the bytes may be shared beyond that."""
    if not path.is_symlink():
        return None
    blob = Path(os.path.normpath(path.parent / path.readlink()))
    return blob if blob.parent.name == "blobs" and os.path.lexists(blob) else None


def _second_copy(file: Pulled) -> Path | None:
    """The same bytes in blobs/, which programs can leave there on a disk without links."""
    path = Path(file.path)
    repository = next((place for place in path.parents if place.name.startswith("models--")), None)
    if repository is None or path.is_symlink() or not file.sha256:
        return None
    blob = repository / "blobs" / file.sha256
    return blob if blob.exists() else None


def _clear(path: Path) -> None:
    """Remove the folders that are empty now, and of a repository without files its references."""
    repository = next((p for p in path.parents if p.name.startswith("models--")), None)
    top = repository / "snapshots" if repository else paths.data_dir() / "models"
    for folder in path.parents:
        if folder == top or not folder.is_relative_to(top):
            break
        with suppress(OSError):
            folder.rmdir()
    if repository is None or any((repository / "snapshots").glob("*")):
        return
    for kind in ("refs", ".no_exist"):
        shutil.rmtree(repository / kind, ignore_errors=True)
    for place, _, _ in os.walk(repository, topdown=False):
        with suppress(OSError):
            Path(place).rmdir()
