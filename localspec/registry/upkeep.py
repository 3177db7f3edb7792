"""Pulled files afterwards: checked, mended and removed.

A check reads a file again and names the blocks that differ. A damaged file is mended in place: only
those blocks are fetched, of the same commit, and the SHA-256 of the whole decides. A file that is
gone or cut is pulled like an interrupted download.

Removing touches only what localspec pulled. Revisions in the hub's cache can share a file's bytes,
and other programs put files there: bytes go with their last name, folders when they are empty.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from localspec import paths
from localspec.errors import ModelError, UserError
from localspec.gguf.reader import PART_NAME, read_header
from localspec.gguf.remote import AGAIN, HttpSource
from localspec.notify import Notify
from localspec.registry.catalog import entry_of, no_such_model
from localspec.registry.manifest import Pulled, forget, pulled, record
from localspec.registry.other_apps import found_models, found_named
from localspec.registry.pull import Digest, OnProgress, pull_file
from localspec.registry.remote_file import describe, shelf_of
from localspec.registry.resolve import quantization_of, split_type

State = Literal["whole", "damaged", "missing", "unfinished"]
MOST_MENDED = 0.25
"""Of a file; where more of it is damaged, it is fetched anew."""
MOST_NAMES = 3


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes from `begin` to `end` that differ somewhere, and their tensors."""

    begin: int
    end: int
    tensors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """The state of a file; `damage` is empty if the differing bytes are unknown."""

    file: Pulled
    state: State
    damage: tuple[Damage, ...] = ()


def check(file: Pulled, on_bytes: Callable[[int], None]) -> Finding:
    """Read a file again. Raises ModelError where the disk does not let it."""
    if not file.is_whole:
        return Finding(file, "unfinished")
    path = Path(file.path)
    if not path.exists():
        return Finding(file, "missing")
    try:
        now = Digest.of(path, on_bytes)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}; pull it again") from error
    if now.sha256 == file.sha256:
        return Finding(file, "whole")
    return Finding(file, "damaged", _damage(file, now))


def repair(finding: Finding, notify: Notify, on_progress: OnProgress) -> None:
    """Make a file whole again. Raises ModelError or HardwareError where that fails."""
    file = finding.file
    if finding.state == "damaged" and _can_be_mended(finding):
        _mend(finding, on_progress)
        if check(file, lambda n_bytes: None).state == "whole":
            return
    remote = next(
        (part for part in describe(_pinned(file), notify) if part.file_name == file.file), None
    )
    if remote is None or _is_another(remote.digest, file.sha256):
        raise ModelError(f"{file.reference} is another file on its server now: pull it again")
    shelf = shelf_of(remote)
    if shelf.blob.exists():
        shelf.blob.unlink()
    again, _ = pull_file(remote, file.name, notify, on_progress)
    record(replace(again, reference=file.reference))


def _is_another(digest: str | None, sha256: str | None) -> bool:
    """Whether what the hub has is not what was recorded; a small file is named by another hash."""
    is_known = sha256 is not None and digest is not None and len(digest) == len(sha256)
    return is_known and digest != sha256


def _pinned(file: Pulled) -> str:
    """The reference of exactly these bytes."""
    base = file.reference.partition("@")[0]
    is_hub = file.revision is not None and file.reference.startswith("hf:")
    return f"{base}@{file.revision}" if is_hub else file.reference


def _damage(file: Pulled, now: Digest) -> tuple[Damage, ...]:
    if not file.blocks or not file.sha256 or file.n_bytes is None:
        return ()
    spans = Digest(file.sha256, file.n_bytes, file.blocks).damaged(now)
    return tuple(Damage(begin, end, _tensors(file, begin, end)) for begin, end in spans)


def _tensors(file: Pulled, begin: int, end: int) -> tuple[str, ...]:
    """Names of the tensors in those bytes, if the header can still be read."""
    try:
        header = read_header(file.path)
    except ModelError:
        return ()
    part = next((i for i, p in enumerate(header.parts) if p.name == file.path), 0)
    return tuple(
        tensor.name
        for tensor in header.tensors
        if tensor.part == part
        and tensor.offset_bytes < end
        and begin < tensor.offset_bytes + tensor.n_bytes
    )


def _can_be_mended(finding: Finding) -> bool:
    size, path = finding.file.n_bytes, Path(finding.file.path)
    n_damaged = sum(damage.end - damage.begin for damage in finding.damage)
    is_of_size = size is not None and path.stat().st_size == size
    return is_of_size and 0 < n_damaged <= max(MOST_MENDED * (size or 0), 1)


def _mend(finding: Finding, on_progress: OnProgress) -> None:
    """Fetch the damaged blocks and write them in place."""
    file = finding.file
    name, total = Path(file.path).name, sum(d.end - d.begin for d in finding.damage)
    source, n_done = HttpSource.of(_pinned(file)), 0
    with Path(file.path).open("r+b") as target:
        for damage in finding.damage:
            target.seek(damage.begin)
            while (at := target.tell()) < damage.end:
                piece = source.read(at, damage.end - at)
                if not piece:
                    raise ModelError(f"{source.name} ends before byte {damage.end:,}: {AGAIN}")
                target.write(piece)
                n_done += len(piece)
                on_progress("fetching", name, n_done, total)
        target.flush()
        os.fsync(target.fileno())


def sentence(finding: Finding) -> str:
    """The state of a file, to follow its name in a sentence."""
    return {
        "whole": "is whole",
        "missing": "is gone",
        "unfinished": "is downloaded in part: `localspec pull` resumes",
        "damaged": f"is damaged{_where(finding)}",
    }[finding.state]


def _where(finding: Finding) -> str:
    if not finding.damage:
        return ""
    spans = [f"{damage.begin:,} to {damage.end:,}" for damage in finding.damage]
    names = list(dict.fromkeys(name for damage in finding.damage for name in damage.tensors))
    return f" in bytes {_few(spans)}" + (f", of {_few(names)}" if names else "")


def _few(items: list[str]) -> str:
    more = len(items) - MOST_NAMES
    return ", ".join(items[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


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
    files, named = pulled(), _named(reference)
    chosen = [file for file in files if named(file)]
    if not chosen:
        raise _nothing_of(reference)
    own = [file for file in chosen if file.fetched or with_adopted]
    if not own:
        raise UserError(
            f"{reference} was here before localspec: remove it with the program that brought it"
            f" ({chosen[0].path})"
        )
    return own


def planned_removals(files: Sequence[Pulled]) -> list[Removal]:
    """The effect of removing files, without removing them."""
    return [_removal(file) for file in files]


def remove(removal: Removal) -> None:
    """Take a file away. Raises OSError where that is not allowed."""
    for path in removal.paths:
        path.unlink(missing_ok=True)
    _clear(Path(removal.file.path))
    forget(removal.file.path)


def _named(reference: str) -> Callable[[Pulled], bool]:
    name, kind = split_type(reference)
    entry = entry_of(name)
    base = reference.partition("@")[0]

    def is_it(file: Pulled) -> bool:
        if entry is not None and file.name == entry.name:
            return kind in (None, quantization_of(file.file))
        return base in (_first(file.reference), file.path, Path(file.file).name) or (
            file.reference == reference
        )

    return is_it


def _first(reference: str) -> str:
    """The reference of a model's first part, without a revision."""
    base = reference.partition("@")[0]
    folder, slash, name = base.rpartition("/")
    part = PART_NAME.fullmatch(name)
    return f"{folder}{slash}{part[1]}-00001-of-{part[3]}.gguf" if part else base


def _nothing_of(reference: str) -> UserError:
    entry = entry_of(split_type(reference)[0])
    if entry is not None:
        where = f"the package {entry.package} carries it" if entry.package else "it was not pulled"
        return UserError(f"there is nothing of {reference} to remove: {where}")
    others = found_named(reference, found_models())
    if others:
        return UserError(
            f"{others[0].name} belongs to {others[0].origin}: remove it there ({others[0].path})"
        )
    names = [file.name or _first(file.reference) for file in pulled()]
    return no_such_model(reference, dict(zip(names, names, strict=True)))


def _removal(file: Pulled) -> Removal:
    path = Path(file.path)
    doomed = [path] if os.path.lexists(path) else []
    if file.partial and os.path.lexists(file.partial):
        doomed.append(Path(file.partial))
    blob = _blob_of(path)
    if blob is not None and not _other_names(path, blob):
        doomed.append(blob)
    freed = sum(place.stat().st_size for place in doomed if not place.is_symlink())
    return Removal(file, freed, tuple(doomed))


def _blob_of(path: Path) -> Path | None:
    """Where a link of the hub's cache leads, one step: the bytes may be shared beyond that."""
    if not path.is_symlink():
        return None
    blob = Path(os.path.normpath(path.parent / path.readlink()))
    return blob if blob.parent.name == "blobs" and os.path.lexists(blob) else None


def _other_names(path: Path, blob: Path) -> bool:
    snapshots = blob.parent.parent / "snapshots"
    links = (Path(place) / name for place, _, names in os.walk(snapshots) for name in names)
    return any(_blob_of(link) == blob for link in links if link != path)


def _clear(path: Path) -> None:
    """Remove the folders that are empty now, and of a repository without files its references."""
    repository = next((p for p in path.parents if p.name.startswith("models--")), None)
    top = repository / "snapshots" if repository else paths.data_dir() / "models"
    for folder in path.parents:
        if folder == top or not folder.is_relative_to(top):
            break
        with suppress(OSError):
            folder.rmdir()
    if repository and not any((repository / "snapshots").glob("*")):
        _clear_repository(repository)


def _clear_repository(repository: Path) -> None:
    for kind in ("refs", ".no_exist"):
        shutil.rmtree(repository / kind, ignore_errors=True)
    for place, _, _ in os.walk(repository, topdown=False):
        with suppress(OSError):
            Path(place).rmdir()
