"""How long to wait for a server that does not answer, is busy, or asks to be left alone.

Waits double from half a second; a `Retry-After` or a rate limit's reset is obeyed as it stands. A
server that cannot be reached at all is given up after two tries: that is a network which is off.
Source: RFC 9110, section 10.2.3; the `RateLimit` header of the hub.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

MAX_TRIES, TRIES_TO_REACH = 6, 2
FIRST_WAIT_S, LONGEST_WAIT_S, LONGEST_ASKED_S = 0.5, 8.0, 600.0
BUSY = (408, 425, 429, 500, 502, 503, 504)

Talk = Callable[[str], None]


class Later(Exception):
    """Not now: try again, after `wait_s` if the server said when, `n_tries` times in all."""

    def __init__(self, reason: str, wait_s: float | None = None, n_tries: int = MAX_TRIES) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait_s = wait_s
        self.n_tries = n_tries


@dataclass(slots=True)
class Patience:
    """What is left of it, for one file; progress renews it."""

    talk: Talk
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
            self.talk(f"{later.reason}; next try in {wait_s:.0f} s")
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
