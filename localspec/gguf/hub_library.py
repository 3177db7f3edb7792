"""The hub's own library: imported on use, because that is slow, and the settings it trips over.

It reads its variables once, while it is imported. Its client reads the network's: proxies, and the
certificates to trust. A wrong one becomes a sentence that names the variable. Sources:
huggingface_hub/constants.py and utils/_http.py, and the environment variables of HTTPX.
"""

import importlib
import os
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from localspec.errors import UserError

_SECONDS = ("HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
_SCHEMES = ("http", "https", "socks5", "socks5h")


def hub(part: str = "") -> Any:
    """A module of the hub's library: `hub("utils")`. UserError for a variable it cannot read."""
    for name in _SECONDS:
        value = os.environ.get(name)
        if value is not None and not re.fullmatch(r"\s*\d+\s*", value):
            raise UserError(f"{name}={value!r} is no number of seconds: write one, or unset it")
    endpoint = os.environ.get("HF_ENDPOINT")
    if endpoint and not re.match(r"https?://[^/]", endpoint):
        raise UserError(
            f"HF_ENDPOINT={endpoint!r} is no address: write it as https://host, or unset it"
        )
    return importlib.import_module(f"huggingface_hub{'.' if part else ''}{part}")


def http_client() -> Any:
    """The hub's shared HTTP client, an `httpx.Client`; of its successor in later versions.

    Raises UserError where the environment's proxies or certificates make none.
    """
    try:
        return hub("utils").get_session()
    except ImportError as error:
        name, value = next((pair for pair in _proxies() if pair[1].startswith("socks")), ("", ""))
        raise UserError(
            f"{name}={_without_login(value)} is a SOCKS proxy, which needs the package socksio:"
            " `pip install socksio`, or unset the variable"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(_wrong_setting(error)) from error


def http_errors(client: Any) -> tuple[type[Exception], ...]:
    """What a request can raise, in whichever library the client is from."""
    library = next(kind.__module__ for kind in type(client).__mro__ if kind.__name__ == "Client")
    module = importlib.import_module(library.partition(".")[0])
    return (OSError, ValueError, module.HTTPError, module.InvalidURL)


def _wrong_setting(error: Exception) -> str:
    for name in _CERTIFICATES:
        path = os.environ.get(name)
        if path and (isinstance(error, OSError) or not os.path.exists(path)):  # noqa: PTH110
            reason = "is not there" if not os.path.exists(path) else _reason(error)  # noqa: PTH110
            return f"{name}={path} names certificates to trust, and that file {reason}: correct it"
    for name, value in _proxies():
        if urlsplit(value).scheme not in _SCHEMES:
            forms = "http://host:port, https:// or socks5://"
            return f"{name}={_without_login(value)} is no proxy: write it as {forms}, or unset it"
    return f"the network's settings cannot be used ({_reason(error)}): check the proxy variables"


def _reason(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0].rstrip(".")
    return f"cannot be used ({text or type(error).__name__})"


def _proxies() -> Iterator[tuple[str, str]]:
    """Those that are set, in either case, with the scheme that is meant where none is written."""
    for name in _PROXIES:
        for spelled in (name, name.lower()):
            value = os.environ.get(spelled)
            if value:
                yield spelled, value if "://" in value else f"http://{value}"


def _without_login(proxy: str) -> str:
    """A password does not belong into a message."""
    return re.sub(r"//[^/@]*@", "//", proxy)


def connection_problem(error: Exception) -> str:
    """Why a request failed, and what to do about it, from what an HTTP client raised."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    text = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return (
            f"the server's certificate is not trusted here ({text}); log in to this network, or set"
            " SSL_CERT_FILE to the certificates of whoever inspects its traffic"
        )
    if "ProxyError" in kinds and text.startswith("407"):
        return f"the proxy of {_proxy_names()} wants a login; write it as http://name:password@host"
    if "ProxyError" in kinds:
        return f"the proxy of {_proxy_names()} refuses ({text})"
    if kinds & {"ConnectError", "ConnectTimeout"}:
        through = f", asked through {_proxy_names()}" if any(_proxies()) else ""
        return f"the server does not answer ({text}{through})"
    return text


def _proxy_names() -> str:
    return " and ".join(f"{name}={_without_login(value)}" for name, value in _proxies())


PORTAL = (
    "is answered with a web page: log in to this network in a browser if it asks for that, and"
    " check HF_ENDPOINT if it is set"
)
"""What a captive portal does, or a mirror that is none; to follow a name of the hub."""


def is_page(answer: Any) -> bool:
    """Whether an answer is a page for a person, or the demand to log in to the network."""
    kind = answer.headers.get("content-type", "")
    return answer.status_code == 511 or kind.startswith(("text/html", "application/xhtml"))
