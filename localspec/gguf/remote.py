"""Models that lie elsewhere: on the Hugging Face hub or another server, read by HTTP range.

`hub_name` tells what a name means. The hub's own library knows the endpoint (HF_ENDPOINT), the
token (HF_TOKEN or a login) and offline mode (HF_HUB_OFFLINE); it is imported on use because that is
slow.

A header costs megabytes of a model's gigabytes. Later ranges are asked for where the first was
found. A token goes to its own host only: a redirect to another host gets none. Source: RFC 9110,
section 14.
"""

from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Self
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from localspec.errors import ModelError, UserError
from localspec.gguf.header import Header
from localspec.gguf.hub_library import (
    PORTAL,
    connection_problem,
    http_client,
    http_errors,
    hub,
    is_page,
)
from localspec.gguf.hub_name import FORM, HUB, HubFile, file_of, urlsplit_or_refuse
from localspec.gguf.reader import read_source


@dataclass(frozen=True, slots=True)
class Place:
    """A file on a web server. `name` is for messages; address and headers may hold secrets."""

    name: str
    address: str = field(repr=False)
    headers: dict[str, str] = field(repr=False)


def place_of(reference: str) -> Place:
    """From `hf:...` or an http(s) address; UserError if it is neither."""
    hub_file = file_of(reference)
    if hub_file:
        return _hub_place(hub_file)
    parts = urlsplit_or_refuse(reference)
    if not parts.path.rpartition("/")[2]:
        raise UserError(f"{reference!r} is neither {FORM} nor the http(s) address of a file")
    without_login = parts.netloc.rpartition("@")[2]
    name = urlunsplit((parts.scheme, without_login, parts.path, "", ""))
    return Place(name, reference, {})


def _hub_place(found: HubFile) -> Place:
    name = f"{HUB}{found.repository}/{found.file}"
    try:
        address: str = hub().hf_hub_url(found.repository, found.file, revision=found.revision)
    except (hub("errors").HFValidationError, ValueError) as error:
        reason = str(error).partition(". ")[0].rstrip(".")
        raise UserError(f"{name!r} is not {FORM}: {reason}") from error
    return Place(name, address, hub("utils").build_hf_headers())


SILENCE_S, SLOWEST_READ_S = 20.0, 60.0
LARGEST_READ_BYTES = 1 << 20
AGAIN = "try again later"

_STATUS_REASONS = {
    401: "needs a login: set HF_TOKEN, or run `hf auth login`",
    403: "is not open to you: accept its licence on the hub, and set HF_TOKEN",
    404: "does not exist: check the name",
    511: PORTAL,
    429: "is refused for now, because of too many requests: wait, or set HF_TOKEN",
}
# `X-Error-Code` of the hub, which answers 401 for what it does not want to say exists.
_HUB_REASONS = {
    "EntryNotFound": "does not exist in its repository: check the file's name",
    "GatedRepo": "is gated: accept its licence on the hub, and set HF_TOKEN",
    "RepoNotFound": "is in a repository that does not exist or is private: check the name, or set"
    " HF_TOKEN",
    "RevisionNotFound": "does not exist in this revision: check the part after @",
}


def refusal(answer: Any) -> str:
    """Why a server refuses a file, to follow its name in a sentence."""
    reason = _HUB_REASONS.get(answer.headers.get("x-error-code", ""))
    if reason is None and answer.status_code == 401 and "authorization" in answer.request.headers:
        reason = "is refused to your token: renew HF_TOKEN, or run `hf auth login`"
    other = f"is refused by its server ({answer.status_code}): {AGAIN}"
    return reason or _STATUS_REASONS.get(answer.status_code, other)


def page_instead(name: str) -> str:
    """What to do about a web page where a file should be, to follow the file's name."""
    return PORTAL if name.startswith(HUB) else PAGE


PAGE = "is a web page: give the address of the .gguf file itself"


class HttpSource:
    """A file on a web server that answers range requests; it ends where the server says it does."""

    def __init__(self, place: Place) -> None:
        self._origin = place
        self._address = place.address
        self._headers = {"Accept-Encoding": "identity"} | place.headers
        self._size_bytes: int | None = None
        self.n_bytes_fetched = 0

    @classmethod
    def of(cls, reference: str) -> Self:
        """From `hf:owner/repo/file.gguf[@revision]` or an http(s) address; UserError if neither."""
        return cls(place_of(reference))

    @property
    def name(self) -> str:
        return self._origin.name

    @property
    def size_bytes(self) -> int | None:
        return self._size_bytes

    def read(self, offset: int, n_bytes: int) -> bytes:
        """At most 1 MiB from `offset` on. ModelError says what is wrong with file or server."""
        client = http_client()
        last = offset + min(n_bytes, LARGEST_READ_BYTES) - 1
        try:
            piece = self._ask(client, offset, last)
        except hub("errors").OfflineModeIsEnabled as error:
            raise self._fail("is not read while HF_HUB_OFFLINE is set: unset it") from error
        except http_errors(client) as error:
            raise self._fail(f"cannot be read ({connection_problem(error)}): {AGAIN}") from error
        self.n_bytes_fetched += len(piece)
        return piece

    def sibling(self, file_name: str) -> "HttpSource":
        """Beside this one at its first address: what that leads to has a name of its own."""
        place, parts = self._origin, urlsplit(self._origin.address)
        name = place.name[: place.name.rindex("/") + 1] + file_name
        path = parts.path[: parts.path.rindex("/") + 1] + quote(unquote(file_name))
        return HttpSource(Place(name, urlunsplit(parts._replace(path=path)), place.headers))

    def close(self) -> None:
        """The client is the hub's and stays open."""

    def _fail(self, what: str) -> ModelError:
        return ModelError(f"{self.name} {what}")

    def _ask(self, client: Any, offset: int, last: int) -> bytes:
        headers = self._headers | {"Range": f"bytes={offset}-{last}"}
        with client.stream(
            "GET", self._address, headers=headers, timeout=SILENCE_S, follow_redirects=True
        ) as answer:
            if answer.status_code == 416:  # beyond the end
                return b""
            self._check_answer(answer)
            piece = self._body(answer, self._announced(answer, offset, last))
            request = answer.request
        # Ask next where this was found, with the token only if that has been sent there, too.
        token, sent = self._headers.get("authorization"), request.headers.get("authorization")
        if sent in (None, token):
            self._address = str(request.url)
        if sent is None:
            self._headers.pop("authorization", None)
        return piece

    def _check_answer(self, answer: Any) -> None:
        if answer.status_code == 200:
            if is_page(answer):
                raise self._fail(page_instead(self.name))
            raise self._fail("is on a server that sends whole files only: download it first")
        if answer.status_code != 206:
            raise self._fail(refusal(answer))
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise self._fail("is sent compressed, without being asked for: download it first")

    def _announced(self, answer: Any, offset: int, last: int) -> int:
        """How many bytes the answer says that it has, and where: `bytes 0-1023/4096`."""
        content_range = answer.headers.get("content-range", "")
        span, _, size = content_range.removeprefix("bytes ").partition("/")
        first, _, end = span.partition("-")
        if not (_is_count(first) and _is_count(end) and int(first) == offset <= int(end) <= last):
            raise self._fail(f"was answered with another part of the file: {AGAIN}")
        if _is_count(size):
            if self._size_bytes not in (None, int(size)):
                raise self._fail(f"changed while it was read: {AGAIN}")
            self._size_bytes = int(size)
        return int(end) - offset + 1

    def _body(self, answer: Any, n_bytes: int) -> bytes:
        piece, end_s = bytearray(), monotonic() + SLOWEST_READ_S
        for part in answer.iter_raw():
            piece += part
            if len(piece) > n_bytes:
                break
            if monotonic() > end_s:
                raise self._fail(f"comes at {len(piece) / SLOWEST_READ_S:.0f} bytes/s: {AGAIN}")
        if len(piece) != n_bytes:
            much = "more" if len(piece) > n_bytes else f"only {len(piece)} bytes"
            raise self._fail(f"was answered with {much} where {n_bytes} were announced: {AGAIN}")
        return bytes(piece)


def _is_count(text: str) -> bool:
    """A number of bytes that a file can have; others may take long to convert, or fail."""
    return text.isascii() and text.isdecimal() and len(text) < 20


def read_remote(reference: str) -> Header:
    """The header of a model elsewhere, with all of its parts. Raises UserError or ModelError."""
    return read_source(HttpSource.of(reference))
