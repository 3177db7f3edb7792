"""What the hub, or another web server, says of a file before it is fetched, and its place here.

The hub's answer names the SHA-256 of a large file (`X-Linked-Etag`) and its commit, which pins what
a branch means today. Pulled files lie in the hub's own cache, which other programs share:

    models--owner--repo/blobs/DIGEST              the bytes; DIGEST.incomplete while they come
    models--owner--repo/snapshots/COMMIT/FILE     a link to them, made by the hub's own library
    .locks/models--owner--repo/DIGEST.lock        held while they come, by that library, too

On a disk without links (exFAT, many network drives, HF_HUB_DISABLE_SYMLINKS) the bytes move to
snapshots/ when they are whole, and that is the only copy: the library's own rule.

A file of another server lies in localspec's data folder, by host and address.
"""

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from json import JSONDecodeError
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from localspec import paths
from localspec.errors import ModelError, UserError
from localspec.gguf.hub_library import PORTAL, http_client, http_errors, hub, is_page
from localspec.gguf.hub_name import HUB, HubFile, file_of
from localspec.gguf.reader import PART_NAME, part_names
from localspec.gguf.remote import AGAIN, PAGE, place_of, refusal
from localspec.notify import Notify
from localspec.registry.download import BUSY, Later, Retry, later_from, later_of
from localspec.registry.variants import RepositoryFile

T = TypeVar("T")


class RefusedError(ModelError):
    """A hub that answered, and does not give what was asked for."""


class NoSuchFileError(RefusedError):
    """A repository that is there, without the file."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file that can be fetched. Of the hub: its `digest` (SHA-256, or git's SHA-1 of a small
    file) and `commit`; elsewhere `digest` is None and `tag`, if any, distinguishes versions.
    """

    reference: str
    address: str = field(repr=False)
    headers: dict[str, str] = field(repr=False)
    n_bytes: int | None
    hub: HubFile | None
    digest: str | None
    commit: str | None
    tag: str = ""

    @property
    def file_name(self) -> str:
        return self.reference.rpartition("/")[2] if self.hub is None else self.hub.file

    @property
    def pinned(self) -> str:
        """The reference of exactly these bytes."""
        if self.hub is None or self.commit is None:
            return self.reference
        return replace(self.hub, revision=self.commit).name


def describe(reference: str, notify: Notify) -> tuple[RemoteFile, ...]:
    """The file of a reference, or all parts of a split model. Raises UserError or ModelError."""
    on_hub = file_of(reference)
    name = on_hub.file if on_hub else reference
    part = PART_NAME.fullmatch(name)
    names = part_names(name, int(part[3])) if part else None
    if on_hub:
        files = [replace(on_hub, file=file) for file in names or [name]]
        first = _describe_hub(files[0], notify)
        pin = on_hub.revision or first.commit  # of one commit, though the branch moves meanwhile
        pinned = [replace(file, revision=pin) for file in files[1:]]
        rest = zip(files[1:], (_describe_hub(file, notify) for file in pinned), strict=True)
        return (first, *(replace(part, hub=asked) for asked, part in rest))
    return tuple(_describe_address(address, notify) for address in names or [reference])


def repository_files(repository: str, revision: str | None, notify: Notify) -> list[RepositoryFile]:
    """All files of a repository. Raises UserError or ModelError."""
    info = _info(repository, notify, revision=revision, files_metadata=True)
    return [RepositoryFile(file.rfilename, file.size or 0) for file in info.siblings or ()]


def repository_id(repository: str, notify: Notify) -> str:
    """What the hub calls a repository, which may have been renamed. Raises as above."""
    return str(_info(repository, notify).id)


def _info(repository: str, notify: Notify, **wanted: Any) -> Any:
    name = f"{HUB}{repository}"
    try:
        return _patiently(name, lambda: hub().HfApi().model_info(repository, **wanted), notify)
    except hub("errors").HFValidationError as error:
        raise UserError(f"{name!r} is not hf:owner/repo: {error}") from error


def _describe_hub(wanted: HubFile, notify: Notify) -> RemoteFile:
    place = place_of(wanted.name)
    found: Any = _patiently(wanted.name, lambda: hub().get_hf_file_metadata(place.address), notify)
    if found.commit_hash is None or found.etag is None or found.size is None:
        raise ModelError(f"{wanted.name} {PORTAL}")
    pinned = place_of(replace(wanted, revision=found.commit_hash).name)
    return RemoteFile(
        reference=wanted.name,
        address=pinned.address,
        headers=pinned.headers,
        n_bytes=found.size,
        hub=wanted,
        digest=found.etag,
        commit=found.commit_hash,
    )


def _patiently(name: str, ask: Callable[[], T], notify: Notify) -> T:
    """Ask the hub's library something, again if the hub is busy; its errors become sentences."""
    retry, errors, client = Retry(notify), hub("errors"), http_client()
    while True:
        try:
            return ask()
        except errors.OfflineModeIsEnabled as error:
            raise ModelError(f"{name} {offline()}") from error
        except errors.HfHubHTTPError as error:
            if error.response.status_code not in BUSY:
                is_file = error.response.headers.get("x-error-code") == "EntryNotFound"
                kind = NoSuchFileError if is_file else RefusedError
                raise kind(f"{name} {refusal(error.response)}") from error
            _wait(retry, name, later_of(error.response))
        except http_errors(client) as error:
            if isinstance(error, errors.HFValidationError):
                raise
            if isinstance(error, JSONDecodeError):  # of what should be a listing
                raise ModelError(f"{name} {PORTAL}") from error
            _wait(retry, name, later_from(error))


def offline() -> str:
    return "is not here and cannot be fetched while HF_HUB_OFFLINE or --offline is set"


def _wait(retry: Retry, name: str, later: Later) -> None:
    try:
        retry.wait(later)
    except Later:
        raise ModelError(f"{name} cannot be looked up ({later.reason}): {AGAIN}") from later


def _describe_address(address: str, notify: Notify) -> RemoteFile:
    """Of a file elsewhere: size and tag, from the head of the answer."""
    place = place_of(address)
    answer: Any = _patiently(place.name, lambda: _head(place.address), notify)
    if answer.status_code in BUSY:
        raise ModelError(f"{place.name} {refusal(answer)}")
    headers = answer.headers
    if answer.status_code >= 400 or is_page(answer):
        raise ModelError(f"{place.name} {refusal(answer) if answer.status_code >= 400 else PAGE}")
    size = headers.get("content-length", "")
    return RemoteFile(
        reference=address,
        address=place.address,
        headers=dict(place.headers),
        n_bytes=int(size) if size.isascii() and size.isdecimal() else None,
        hub=None,
        digest=None,
        commit=None,
        tag=headers.get("etag") or headers.get("last-modified") or size,
    )


def _head(address: str) -> Any:
    client, headers = http_client(), {"Accept-Encoding": "identity"}
    limit_s = hub("constants").HF_HUB_ETAG_TIMEOUT
    return client.head(address, headers=headers, timeout=limit_s, follow_redirects=True)


@dataclass(frozen=True, slots=True)
class CachePaths:
    """The places of one file: its bytes, the part that has come, the lock, what names it.

    Without links `blob` is what names it, too.
    """

    blob: Path
    partial: Path
    lock: Path
    pointer: Path


def cache_folder() -> Path:
    """Of the hub: HF_HUB_CACHE, else in HF_HOME."""
    return Path(hub("constants").HF_HUB_CACHE)


def repository_folder(repository: str) -> Path:
    return cache_folder() / hub("file_download").repo_folder_name(
        repo_id=repository, repo_type="model"
    )


def shelf_of(file: RemoteFile) -> CachePaths:
    """Where a file belongs, whether it is there or not."""
    if file.hub is None or file.digest is None or file.commit is None:
        return _own_shelf(file)
    folder = repository_folder(file.hub.repository)
    blob = folder / "blobs" / file.digest
    pointer = folder / "snapshots" / file.commit / file.hub.file
    return CachePaths(
        blob=_place_of_bytes(pointer, blob),
        partial=blob.with_name(f"{file.digest}.incomplete"),
        lock=cache_folder() / ".locks" / folder.name / f"{file.digest}.lock",
        pointer=pointer,
    )


def _place_of_bytes(pointer: Path, blob: Path) -> Path:
    """Where what is named leads, else where the hub's library would put the bytes."""
    if pointer.exists():
        return pointer.resolve() if pointer.is_symlink() else pointer
    return blob if blob.exists() or has_links() else pointer


def has_links() -> bool:
    """Whether the cache's disk has symbolic links, as the hub's library finds out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it would explain the lack of links at length
        try:
            return hub("file_download").are_symlinks_supported(cache_folder())
        except OSError:
            return True  # nothing can be written there, which is said where something must be


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
    try:
        path = Path(
            hub().hf_hub_download(file.hub.repository, file.hub.file, revision=file.hub.revision)
        )
    except OSError:
        if not shelf.pointer.exists():
            raise
        return shelf.pointer  # a cache that is only read has no place for a branch's name
    if path != shelf.pointer and path.resolve() != shelf.blob.resolve():
        raise ModelError(f"{file.reference} changed on the hub while it was pulled: pull it again")
    return path


def cached(wanted: HubFile) -> Path | None:
    """The file of a reference in the hub's cache, if it is there. ValueError if it cannot be."""
    found: Any = hub().try_to_load_from_cache(
        wanted.repository, wanted.file, revision=wanted.revision
    )
    return Path(found) if isinstance(found, str) else None
