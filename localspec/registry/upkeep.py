"""Pulled files afterwards: checked and mended.

A check reads a file again and names the blocks that differ. A damaged file is mended in place: only
those blocks are fetched, of the same commit, and the SHA-256 of the whole decides. A file that is
gone or cut is pulled like an interrupted download.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from localspec.errors import ModelError
from localspec.gguf.reader import read_header
from localspec.gguf.remote import AGAIN, HttpSource
from localspec.notify import Notify
from localspec.registry.manifest import Pulled, record
from localspec.registry.pull import Digest, OnProgress, pull_file
from localspec.registry.remote_file import describe, shelf_of
from localspec.registry.variants import few

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
    shelf_of(remote).blob.unlink(missing_ok=True)
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
    return f" in bytes {few(spans, MOST_NAMES)}" + (
        f", of {few(names, MOST_NAMES)}" if names else ""
    )
