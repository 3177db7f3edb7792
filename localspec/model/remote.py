"""Read the header of a model that lies elsewhere, by HTTP range: megabytes instead of gigabytes.

`hf:owner/repo/file.gguf`, with `@revision` after it if wanted, goes to the Hugging Face hub through
its own client, which knows the endpoint, the token and offline mode; an http(s) address is asked as
it stands, without a token. A token never follows a redirect to another host.
"""

import importlib
from pathlib import PurePosixPath
from typing import Any, Self
from urllib.parse import unquote, urlsplit, urlunsplit

from localspec.errors import ModelError, UserError
from localspec.model.gguf import read_source
from localspec.model.header import Header

HUB = "hf:"
TIMEOUT_S = 20.0
LARGEST_READ_BYTES = 1 << 20

_REASONS = {
    401: "needs a login: set HF_TOKEN, or run `hf auth login`",
    403: "is not open to you: accept its licence on the hub, and set HF_TOKEN",
    404: "does not exist: check the name",
    429: "is refused for now, because of too many requests: wait, or set HF_TOKEN",
}


class HttpSource:
    """A file on a web server that answers range requests."""

    def __init__(self, name: str, address: str, headers: dict[str, str] | None = None) -> None:
        self._name, self._address = name, address
        self._headers = {"Accept-Encoding": "identity"} | (headers or {})
        self._size_bytes: int | None = None
        self.n_bytes_fetched = 0

    @classmethod
    def of(cls, reference: str) -> Self:
        """From `hf:owner/repo/file.gguf[@revision]` or an http(s) address; UserError if neither."""
        if reference.startswith(HUB):
            name, _, revision = reference.partition("@")
            return cls(name, *_hub_address(name, revision or None))
        parts = urlsplit(reference)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise UserError(f"{reference!r} is neither hf:owner/repo/file.gguf nor an address")
        return cls(urlunsplit((*parts[:3], "", "")), reference)

    @property
    def name(self) -> str:
        return self._name

    @property
    def size_bytes(self) -> int | None:
        return self._size_bytes

    def read(self, offset: int, n_bytes: int) -> bytes:
        """At most 1 MiB from `offset` on. ModelError says what is wrong with file or server."""
        session = _session()
        last = offset + min(n_bytes, LARGEST_READ_BYTES) - 1
        headers = self._headers | {"Range": f"bytes={offset}-{last}"}
        try:
            with session.stream(
                "GET", self._address, headers=headers, timeout=TIMEOUT_S, follow_redirects=True
            ) as answer:
                piece = self._body(answer, offset, last)
        except (OSError, _http_error(session)) as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise ModelError(f"{self._name} cannot be read ({reason}): try again later") from error
        self.n_bytes_fetched += len(piece)
        return piece

    def sibling(self, file_name: str) -> "HttpSource":
        name = self._name[: self._name.rindex("/") + 1] + file_name
        parts = urlsplit(self._address)
        path = parts.path[: parts.path.rindex("/") + 1] + file_name
        return HttpSource(name, urlunsplit(parts._replace(path=path)), self._headers)

    def close(self) -> None:
        """The client is the hub's and stays open."""

    def _body(self, answer: Any, offset: int, last: int) -> bytes:
        if answer.status_code == 416:  # beyond the end
            return b""
        if answer.status_code == 200:
            raise ModelError(
                f"{self._name} comes from a server that sends whole files only: download it first"
            )
        if answer.status_code != 206:
            reason = _REASONS.get(answer.status_code, f"is refused ({answer.status_code})")
            raise ModelError(f"{self._name} {reason}")
        wanted = self._announced(answer.headers.get("content-range", ""), offset, last)
        piece = bytearray()
        for part in answer.iter_bytes():
            piece += part
            if len(piece) > wanted:
                break
        if len(piece) != wanted:
            raise ModelError(
                f"{self._name} was answered with {len(piece)} bytes or more where {wanted} were"
                " announced: try again later"
            )
        return bytes(piece)

    def _announced(self, content_range: str, offset: int, last: int) -> int:
        """How many bytes the answer says that it has, and where: `bytes 0-1023/4096`."""
        span, _, size = content_range.removeprefix("bytes ").partition("/")
        first, _, end = span.partition("-")
        if not (first.isdecimal() and end.isdecimal() and int(first) == offset <= int(end) <= last):
            raise ModelError(f"{self._name} was answered with another part of the file: try again")
        if size.isdecimal():
            self._size_bytes = int(size)
        return int(end) - offset + 1


def read_remote(reference: str) -> Header:
    """The header of a model elsewhere, with all of its parts. Raises UserError or ModelError."""
    source = HttpSource.of(reference)
    try:
        return read_source(source)
    finally:
        source.close()


def _hub_address(name: str, revision: str | None) -> tuple[str, dict[str, str]]:
    from huggingface_hub import hf_hub_url  # noqa: PLC0415 - slow to import
    from huggingface_hub.errors import HFValidationError  # noqa: PLC0415
    from huggingface_hub.utils import build_hf_headers  # noqa: PLC0415

    path = PurePosixPath(name.removeprefix(HUB))
    if len(path.parts) < 3:
        raise UserError(f"{name!r} is not of the form hf:owner/repo/file.gguf")
    repository, file = "/".join(path.parts[:2]), "/".join(path.parts[2:])
    try:
        address = hf_hub_url(repository, unquote(file), revision=revision)
    except (HFValidationError, ValueError) as error:
        reason = str(error).partition(". ")[0].rstrip(".")
        raise UserError(f"{name} is not hf:owner/repo/file.gguf: {reason}") from error
    return address, build_hf_headers()


def _session() -> Any:
    from huggingface_hub.utils import get_session  # noqa: PLC0415 - slow to import

    return get_session()


def _http_error(session: Any) -> type[Exception]:
    """The base of what the hub's HTTP library raises, which is not the same in all its versions."""
    library = next(kind.__module__ for kind in type(session).__mro__ if kind.__name__ == "Client")
    return importlib.import_module(library.partition(".")[0]).HTTPError
