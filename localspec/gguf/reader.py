"""Read the GGUF header of a model, in one file or split, from this machine or from elsewhere.

A split model (`NAME-00001-of-00003.gguf`) is read as one, whichever part is named: the first part
has the metadata, every part its own tensors. Source: the GGUF specification (docs/gguf.md of ggml)
and llama_model_loader in llama.cpp, which loads such a model through its first part and finds the
others by name.

A fingerprint says whether two files are the same model, without reading gigabytes. It covers the
size of each part, its first megabyte (of the first part the header, with every name, type and
offset) and three samples of the weights. Files that differ only elsewhere in the weights share it,
which no converter or trainer produces by chance; a download's checksum covers every byte. Profiles,
quality references, saved caches, measured costs and bench results are kept by it.
"""

import errno
import hashlib
import os
import re
import stat
import time
from contextlib import closing
from functools import lru_cache
from pathlib import Path, PurePath

from localspec.errors import ModelError
from localspec.gguf.cursor import FileSource, Source
from localspec.gguf.header import FilePart, Header, Tensor, parse

__all__ = ["FilePart", "Header", "Tensor", "part_names", "read_header", "read_source"]

MAX_PARTS = 1_000
MOST_KEPT = 2
"""Headers of files that are asked for again, a target's and a draft's: a vocabulary takes time."""
SETTLED_S = 2.0
State = tuple[tuple[str, int, int, int], ...]
"""What the system says of a model's files, by name."""
PART_NAME = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.DOTALL)


def read_header(path: str | os.PathLike[str]) -> Header:
    """The header of a local file and its other parts, if any; ModelError if they are not whole."""
    try:
        state, is_settled = _state(Path(path))
    except (OSError, ValueError):
        state, is_settled = (), False  # reading has a sentence on it
    read = _read if is_settled else _read.__wrapped__
    return read(os.fspath(path), state)


@lru_cache(maxsize=MOST_KEPT)
def _read(path: str, _state: State) -> Header:
    with closing(FileSource(path)) as source:
        return read_source(source)


def _state(path: Path) -> tuple[State, bool]:
    """Another one when a file of the model is another; and whether it can be told by that: not
    where one may still change unseen, within a tick of the file system's clock."""
    states = [(str(part), part.stat()) for part in parts_of(path)]
    # Opening a pipe would wait for its writer.
    if odd := [name for name, state in states if not stat.S_ISREG(state.st_mode)]:
        raise OSError(errno.EINVAL, "not a regular file", odd[0])
    is_settled = all(time.time() - state.st_mtime > SETTLED_S for _, state in states)
    return tuple((name, s.st_ino, s.st_size, s.st_mtime_ns) for name, s in states), is_settled


def read_source(source: Source) -> Header:
    """The same for any source; the other parts of a split model come from `source.sibling`."""
    header = parse(source)
    n_parts = header.integer("split.count") or 1
    return header if n_parts == 1 else _read_parts(source, header, n_parts)


def part_names(file_name: str, n_parts: int) -> list[str] | None:
    """The file names of all parts, from that of any one; None if it is not named like a part."""
    match = PART_NAME.fullmatch(file_name)
    if match is None or int(match[3]) != n_parts:
        return None
    return [f"{match[1]}-{number:05d}-of-{n_parts:05d}.gguf" for number in range(1, n_parts + 1)]


def _read_parts(source: Source, header: Header, n_parts: int) -> Header:
    here = PurePath(source.name).name
    names = part_names(here, n_parts) if 1 < n_parts <= MAX_PARTS else None
    if names is None:
        raise header.fail(
            f"is one of {n_parts} parts but is not named NAME-00001-of-{n_parts:05d}.gguf or so;"
            " give every part its own name back"
        )
    parts = [
        header if (part, name) == (0, here) else _read_part(source, name, part)
        for part, name in enumerate(names)
    ]
    for part, header in enumerate(parts):
        number, count = header.integer("split.no"), header.integer("split.count")
        if (number, count) != (part, n_parts):
            raise header.fail(
                f"says that it is part {number} of {count} (from 0) where {part} of {n_parts}"
                " belongs; download all parts again"
            )
    return _merged(parts)


def _read_part(source: Source, name: str, part: int) -> Header:
    try:
        sibling = source.sibling(name)
    except ModelError as error:
        raise ModelError(f"{source.name} is one part of several, of which {error}") from error
    with closing(sibling):
        return parse(sibling, part)


def _merged(headers: list[Header]) -> Header:
    first = headers[0]
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    n_names = len({tensor.name for tensor in tensors})
    n_wanted = first.integer("split.tensors.count")
    if not n_names == len(tensors) == n_wanted:
        raise first.fail(
            f"and its other parts have {len(tensors)} tensors with {n_names} names where {n_wanted}"
            " belong; download all parts again"
        )
    parts = tuple(header.parts[0] for header in headers)
    return Header(parts, first.version, first.alignment_bytes, first.metadata, tensors)


HEAD_BYTES = 1 << 20
SAMPLE_BYTES = 1 << 16
SAMPLES = (0.25, 0.5, 1.0)
"""Parts of the file where they end."""


def fingerprint(path: Path) -> str:
    """16 hex digits for a local model, one file or split. Raises OSError."""
    state, is_settled = _state(path)
    return _fingerprint(state) if is_settled else _fingerprint.__wrapped__(state)


@lru_cache(maxsize=8)
def _fingerprint(state: State) -> str:
    digest = hashlib.sha256()
    for name, _, size, _ in state:
        digest.update(f"{size}\n".encode())
        with Path(name).open("rb") as file:
            digest.update(file.read(HEAD_BYTES))
            for share in SAMPLES:
                file.seek(max(0, int(share * size) - SAMPLE_BYTES))
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()[:16]


def parts_of(path: Path) -> list[Path]:
    """The file, or all parts that are there of a split model, by the name of one."""
    match = PART_NAME.fullmatch(path.name)
    names = part_names(path.name, int(match[3])) if match else None
    if not names:
        return [path]
    return [part for name in names if (part := path.with_name(name)).exists()]
