"""A file's bytes by HTTP, from where an earlier run stopped, whatever happens on the way.

huggingface_hub 2.4 starts over in every process (its temporary file has a random name, and a
failure deletes it), so localspec fetches bytes itself: `partial` grows, and its size is all that a
later run must know. The address, the token, the client (proxy, certificates) and the place of files
stay the hub's. A connection that breaks or is silent for HF_HUB_DOWNLOAD_TIMEOUT seconds is made
again, with a fresh address from the hub, because those of its storage expire.

Waits double from half a second; a `Retry-After` or the reset of a rate limit is obeyed. A server
that cannot be reached is given up after two tries: the network is off. The library's own back-off
(`http_stream_backoff`) cannot do this: it repeats a request only until its body begins, waits in
silence and without a limit, and has one number of tries for a busy server and for a dead network.
Source: RFC 9110, section 10.2.3; the `RateLimit` header of the hub.
"""

import errno
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, BinaryIO

from localspec.errors import HardwareError, ModelError
from localspec.gguf.hub_library import connection_problem, http_client, http_errors, hub, is_page
from localspec.gguf.remote import AGAIN, page_instead, refusal
from localspec.notify import Notify

MAX_TRIES, TRIES_TO_REACH = 6, 2
FIRST_WAIT_S, LONGEST_WAIT_S, LONGEST_ASKED_S = 0.5, 8.0, 600.0
BUSY = (408, 425, 429, 500, 502, 503, 504)


class Later(Exception):
    """Not now: try again, after `wait_s` if the server said when, `n_tries` times in all."""

    def __init__(self, reason: str, wait_s: float | None = None, n_tries: int = MAX_TRIES) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait_s = wait_s
        self.n_tries = n_tries


@dataclass(slots=True)
class Retry:
    """Waits between tries of one file; progress renews the number of tries."""

    notify: Notify
    n_failures: int = 0

    def renew(self) -> None:
        self.n_failures = 0

    def wait(self, later: Later) -> None:
        """Wait before the next try; raises `later` itself where there should be none."""
        self.n_failures += 1
        if self.n_failures >= later.n_tries:
            raise later
        wait_s = later.wait_s
        if wait_s is None:
            wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (self.n_failures - 1))
        if wait_s > LONGEST_ASKED_S:
            raise later
        if self.n_failures > 1 or later.wait_s is not None:
            self.notify(f"{later.reason}; next try in {wait_s:.0f} s")
        time.sleep(wait_s)


def later_of(answer: Any) -> Later:
    """From an answer whose status is one of `BUSY`."""
    status = answer.status_code
    reason = "too many requests" if status == 429 else f"the server answers {status}"
    return Later(reason, _asked_wait_s(answer.headers))


def _asked_wait_s(headers: Any) -> float | None:
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    if text:
        try:
            moment = parsedate_to_datetime(text)
        except ValueError:
            return None
        return max(0.0, (moment - datetime.now(UTC)).total_seconds())
    limit = re.search(r"r\s*=\s*0\s*;\s*t\s*=\s*(\d+)", headers.get("ratelimit", ""))
    return float(limit[1]) if limit else None


MOST_AT_ONCE_BYTES = 16 << 30
"""The hub's storage sends nothing of 50 GB in one answer (`MAX_HTTP_DOWNLOAD_SIZE` of its library).
"""

OnBytes = Callable[[int], None]
"""Hears how many bytes of the file are here."""


@dataclass(frozen=True, slots=True)
class Download:
    """What to fetch; `n_bytes` None where the server does not say. Headers may hold secrets."""

    name: str
    address: str = field(repr=False)
    headers: dict[str, str] = field(repr=False)
    n_bytes: int | None


def download(wanted: Download, partial: Path, on_bytes: OnBytes, notify: Notify) -> None:
    """Fill `partial` up to the end of the file, from where it ends.

    Raises ModelError if the server refuses or falls silent, HardwareError if the disk is full. The
    downloaded part stays.
    """
    retry = Retry(notify)
    if wanted.n_bytes is not None and _size(partial) > wanted.n_bytes:
        partial.unlink()
    while (n_here := _size(partial)) != wanted.n_bytes:
        try:
            if _fetch_on(wanted, partial, on_bytes):
                return
        except Later as later:
            if _size(partial) > n_here:
                retry.renew()
            try:
                retry.wait(later)
            except Later:
                n = _size(partial)
                kept = f"; {n / 1e6:,.1f} MB are kept, so pull again later" if n else f": {AGAIN}"
                sentence = f"{wanted.name} cannot be fetched ({later.reason}){kept}"
                raise ModelError(sentence) from later


def _size(partial: Path) -> int:
    try:
        return partial.stat().st_size
    except FileNotFoundError:
        return 0


def _fetch_on(wanted: Download, partial: Path, on_bytes: OnBytes) -> bool:
    """One request for the rest; whether the file ends there, where its size was not known."""
    client, n_here = http_client(), _size(partial)
    wish = f"bytes={n_here}-{n_here + MOST_AT_ONCE_BYTES - 1}"
    headers = wanted.headers | {"Accept-Encoding": "identity", "Range": wish}
    try:
        with client.stream(
            "GET",
            wanted.address,
            headers=headers,
            timeout=hub("constants").HF_HUB_DOWNLOAD_TIMEOUT,
            follow_redirects=True,
        ) as answer:
            return _take(answer, wanted, partial, on_bytes)
    except hub("errors").OfflineModeIsEnabled as error:
        raise ModelError(f"{wanted.name} cannot be fetched while HF_HUB_OFFLINE is set") from error
    except _DiskError as error:
        raise _full_or_broken(wanted, partial, error.cause) from error.cause
    except http_errors(client) as error:
        raise later_from(error) from error


def later_from(error: Exception) -> Later:
    """From what an HTTP client raised; a wrong address, proxy or certificate is not tried again."""
    kinds, why = {kind.__name__ for kind in type(error).__mro__}, connection_problem(error)
    if "certificate" in why or kinds & WRONG_FOR_GOOD:
        return Later(why, n_tries=1)
    if kinds & {"ConnectError", "ConnectTimeout"}:
        return Later(why, n_tries=TRIES_TO_REACH)
    if "ReadTimeout" in kinds:
        return Later("the server sends nothing any more")
    return Later(f"the connection broke ({why})")


WRONG_FOR_GOOD = frozenset(
    {"ProxyError", "UnsupportedProtocol", "InvalidURL", "TooManyRedirects", "ValueError"}
)


def _take(answer: Any, wanted: Download, partial: Path, on_bytes: OnBytes) -> bool:
    """Append the body of an answer, or begin anew where the server sends all of the file."""
    span = _span(answer, wanted, partial)
    if span is None:
        return True
    n_here, end = span
    with _opened(partial, n_here) as file:
        for piece in answer.iter_raw():
            n_here += len(piece)
            if end is not None and n_here > end:
                raise ModelError(f"{wanted.name} is answered with more than its size: {AGAIN}")
            _write(file, piece)
            on_bytes(n_here)
    if end is not None and n_here < end:
        raise Later("the connection ended early")
    return wanted.n_bytes is None and answer.status_code == 200


def _span(answer: Any, wanted: Download, partial: Path) -> tuple[int, int | None] | None:
    """Where the body begins and ends; None if the file is complete."""
    n_here, status = _size(partial), answer.status_code
    if status in BUSY:
        raise later_of(answer)
    if is_page(answer) and status in (200, 511):
        raise ModelError(f"{wanted.name} {page_instead(wanted.name)}")
    if status == 200:
        return 0, wanted.n_bytes
    if status == 416 and wanted.n_bytes is None:
        return None
    if status != 206:
        raise ModelError(f"{wanted.name} {refusal(answer)}")
    return n_here, _end_of_range(answer, wanted, n_here)


def _end_of_range(answer: Any, wanted: Download, n_here: int) -> int:
    """`Content-Range: bytes 1024-4095/4096` must begin where asked and be of this file."""
    span, _, size = answer.headers.get("content-range", "").removeprefix("bytes ").partition("/")
    begin, _, last = span.partition("-")
    is_other_size = wanted.n_bytes is not None and size not in ("*", str(wanted.n_bytes))
    if begin != str(n_here) or not (last.isascii() and last.isdecimal()) or is_other_size:
        raise ModelError(f"{wanted.name} is answered with another part or file: {AGAIN}")
    return int(last) + 1


class _DiskError(Exception):
    """Tells errors of the disk from those of the network, which are OSErrors as well."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _opened(partial: Path, begin: int) -> BinaryIO:
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        file = partial.open("ab", buffering=0)
        file.truncate(begin)
    except OSError as error:
        raise _DiskError(error) from error
    return file


def _write(file: BinaryIO, piece: bytes) -> None:
    """All of it: an unbuffered write may take less, and then says why when asked again."""
    rest = memoryview(piece)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        raise _DiskError(error) from error


def _full_or_broken(wanted: Download, partial: Path, error: OSError) -> HardwareError:
    kept = f"{_size(partial) / 1e6:,.1f} MB of it are kept, and pull goes on from there"
    reason = error.strerror or os.strerror(error.errno or 0)
    return HardwareError(
        f"{wanted.name} cannot be written to {partial.parent} ({reason}): {_advice(error)}; {kept}"
    )


def _advice(error: OSError) -> str:
    if error.errno == errno.EFBIG:
        return "its file system has no files of that size (FAT32), so set HF_HOME to another disk"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "make room"
    return "make it writable for you, or set HF_HOME to a folder of your own"
