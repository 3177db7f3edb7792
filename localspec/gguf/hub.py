"""Where a model lies on the Hugging Face hub, and the client to ask with.

`hf:owner/repo/file.gguf`, with `@revision` after it if wanted, and the address of such a file in a
browser mean the same. The hub's own library knows the endpoint (HF_ENDPOINT), the token (HF_TOKEN
or a login) and offline mode (HF_HUB_OFFLINE); it is slow to import, so that happens on use.
"""

import importlib
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from localspec.errors import UserError

HUB = "hf:"
FORM = "hf:owner/repo/file.gguf"


@dataclass(frozen=True, slots=True)
class Place:
    """A file on a web server. `name` is for messages; address and headers may hold secrets."""

    name: str
    address: str = field(repr=False)
    headers: dict[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file on the hub; `revision` None is its main branch."""

    repository: str
    file: str
    revision: str | None = None

    @property
    def name(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{HUB}{self.repository}/{self.file}{revision}"


def hub_file_of(reference: str) -> HubFile | None:
    """From `hf:...` or the address of a file on the hub; None for another http(s) address.

    Raises UserError if it is none of these.
    """
    if reference.startswith(HUB):
        path, _, revision = reference.removeprefix(HUB).partition("@")
        owner, repository, file = ([*path.split("/", 2), "", ""])[:3]
        if not (owner and repository and file) or ".." in file.split("/"):
            raise UserError(f"{HUB + path!r} is not of the form {FORM}")
        return HubFile(f"{owner}/{repository}", unquote(file), revision or None)
    on_hub = _path_on_hub(_web_address(reference))
    if on_hub is None:
        return None
    repository, revision, file = on_hub
    return HubFile(repository, unquote(file), revision)


def place_of(reference: str) -> Place:
    """From `hf:...` or an http(s) address; UserError if it is neither."""
    hub_file = hub_file_of(reference)
    if hub_file:
        return _hub_place(hub_file)
    parts = _web_address(reference)
    without_login = parts.netloc.rpartition("@")[2]
    name = urlunsplit((parts.scheme, without_login, parts.path, "", ""))
    return Place(name, reference, {})


def http_client() -> Any:
    """The hub's shared HTTP client, an `httpx.Client`; of its successor in later versions."""
    from huggingface_hub.utils import get_session  # noqa: PLC0415 - slow to import

    return get_session()


def http_errors(client: Any) -> tuple[type[Exception], ...]:
    """What a request can raise, in whichever library the client is from."""
    library = next(kind.__module__ for kind in type(client).__mro__ if kind.__name__ == "Client")
    module = importlib.import_module(library.partition(".")[0])
    return (OSError, ValueError, module.HTTPError, module.InvalidURL)


def _web_address(reference: str) -> SplitResult:
    try:
        parts = urlsplit(reference)
        is_whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError as error:
        raise UserError(f"{reference!r} is no address ({error}): check it") from error
    if not is_whole or not parts.path.rpartition("/")[2]:
        raise UserError(f"{reference!r} is neither {FORM} nor the http(s) address of a file")
    return parts


def _path_on_hub(parts: SplitResult) -> tuple[str, str, str] | None:
    """Repository, revision and file, of the address of a file's page or of the file itself."""
    from huggingface_hub import constants  # noqa: PLC0415 - slow to import

    endpoint = urlsplit(constants.ENDPOINT)
    path = parts.path.split("/")
    if (parts.scheme, parts.netloc) != endpoint[:2] or len(path) < 6:
        return None
    if not path[1] or not path[2] or path[3] not in ("blob", "resolve"):
        return None
    return f"{path[1]}/{path[2]}", unquote(path[4]), "/".join(path[5:])


def _hub_place(found: HubFile) -> Place:
    from huggingface_hub import hf_hub_url  # noqa: PLC0415 - slow to import
    from huggingface_hub.errors import HFValidationError  # noqa: PLC0415
    from huggingface_hub.utils import build_hf_headers  # noqa: PLC0415

    name = f"{HUB}{found.repository}/{found.file}"
    try:
        address = hf_hub_url(found.repository, found.file, revision=found.revision)
    except (HFValidationError, ValueError) as error:
        reason = str(error).partition(". ")[0].rstrip(".")
        raise UserError(f"{name!r} is not {FORM}: {reason}") from error
    return Place(name, address, build_hf_headers())
