"""Where pulled files lie: in the hub's own cache, which other programs share.

    models--owner--repo/blobs/DIGEST              the bytes; DIGEST.incomplete while they come
    models--owner--repo/snapshots/COMMIT/FILE     a link to them, made by the hub's own library
    .locks/models--owner--repo/DIGEST.lock        held while they come, by that library, too

A file of another server lies in localspec's data folder, by host and address.
"""

import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from urllib.parse import unquote, urlsplit

from localspec import paths
from localspec.errors import ModelError
from localspec.gguf.hub import HubFile
from localspec.registry.remote_file import RemoteFile


@dataclass(frozen=True, slots=True)
class CachePaths:
    """The places of one file: its bytes, the part that has come, the lock, what names it."""

    blob: Path
    partial: Path
    lock: Path
    pointer: Path


def cache_folder() -> Path:
    """Of the hub: HF_HUB_CACHE, else in HF_HOME."""
    from huggingface_hub.constants import HF_HUB_CACHE  # noqa: PLC0415 - slow to import

    return Path(HF_HUB_CACHE)


def repository_folder(repository: str) -> Path:
    from huggingface_hub.file_download import repo_folder_name  # noqa: PLC0415 - slow to import

    return cache_folder() / repo_folder_name(repo_id=repository, repo_type="model")


def shelf_of(file: RemoteFile) -> CachePaths:
    """Where a file belongs, whether it is there or not."""
    if file.hub is None or file.digest is None or file.commit is None:
        return _own_shelf(file)
    folder = repository_folder(file.hub.repository)
    blob = folder / "blobs" / file.digest
    return CachePaths(
        blob=blob,
        partial=blob.with_name(f"{file.digest}.incomplete"),
        lock=cache_folder() / ".locks" / folder.name / f"{file.digest}.lock",
        pointer=folder / "snapshots" / file.commit / file.hub.file,
    )


def _own_shelf(file: RemoteFile) -> CachePaths:
    parts = urlsplit(file.reference)
    steps = [re.sub(r"[^\w.+-]", "_", unquote(step)) for step in parts.path.split("/")]
    steps = [step for step in steps if step.strip(".")]
    # A host may write what it likes into an address; what differs only there is another file.
    short = sha256(file.reference.encode()).hexdigest()[:8]
    host = re.sub(r"[^\w.-]", "_", parts.netloc.rpartition("@")[2])
    path = paths.data_dir() / "models" / host / short / steps[-1]
    version = sha256(f"{file.tag} {file.n_bytes}".encode()).hexdigest()[:8]
    partial = path.with_name(f"{path.name}.{version}.incomplete")
    return CachePaths(path, partial, path.with_name(f"{path.name}.lock"), path)


def publish(file: RemoteFile, shelf: CachePaths) -> Path:
    """Name the bytes that are in place, as the hub's library does; it fetches nothing then."""
    if file.hub is None:
        return shelf.pointer
    from huggingface_hub import hf_hub_download  # noqa: PLC0415 - slow to import

    path = Path(hf_hub_download(file.hub.repository, file.hub.file, revision=file.hub.revision))
    if path != shelf.pointer and path.resolve() != shelf.blob.resolve():
        raise ModelError(f"{file.reference} changed on the hub while it was pulled: pull it again")
    return path


def cached(hub: HubFile) -> Path | None:
    """The file of a reference in the hub's cache, if it is there. ValueError if it cannot be."""
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - slow to import

    found = try_to_load_from_cache(hub.repository, hub.file, revision=hub.revision)
    return Path(found) if isinstance(found, str) else None
