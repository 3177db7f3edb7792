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


def place_of(reference: str) -> Place:
    """From `hf:...` or an http(s) address; UserError if it is neither."""
    if reference.startswith(HUB):
        path, _, revision = reference.removeprefix(HUB).partition("@")
        return _hub_place(path, revision or None)
    parts = _web_address(reference)
    on_hub = _path_on_hub(parts)
    if on_hub:
        repository, revision, file = on_hub
        return _hub_place(f"{repository}/{file}", revision)
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


def _hub_place(path: str, revision: str | None) -> Place:
    from huggingface_hub import hf_hub_url  # noqa: PLC0415 - slow to import
    from huggingface_hub.errors import HFValidationError  # noqa: PLC0415
    from huggingface_hub.utils import build_hf_headers  # noqa: PLC0415

    owner, repository, file = ([*path.split("/", 2), "", ""])[:3]
    if not (owner and repository and file) or ".." in file.split("/"):
        raise UserError(f"{HUB + path!r} is not of the form {FORM}")
    try:
        address = hf_hub_url(f"{owner}/{repository}", unquote(file), revision=revision)
    except (HFValidationError, ValueError) as error:
        reason = str(error).partition(". ")[0].rstrip(".")
        raise UserError(f"{HUB + path!r} is not {FORM}: {reason}") from error
    return Place(HUB + path, address, build_hf_headers())
