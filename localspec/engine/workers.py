"""Other machines that share the layers: are they there, and what do they offer?

A worker is greeted by a socket first, as llama.cpp's RPC greets: a byte for the command, eight for
the size of what follows, and the answer with its size. Then libllama asks it in a child process: it
has no time limit, and ends its process where the other side is no worker.
"""

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from threading import Thread
from time import monotonic
from typing import Self

from localspec.engine.child import call
from localspec.errors import UserError
from localspec.hardware.machine import Reported

PORT = 50052
"""llama.cpp's own."""
CONNECT_S, GREET_S, ANSWER_S = 0.7, 1.4, 2.8
"""To connect; to have connected and greeted; and for all that the other side may take."""
LOADING_S, LATE = 30.0, 75
"""For libllama to be loaded, which a busy machine takes seconds for; how the child says "late"."""
_HELLO, _HELLO_BYTES, _HELLO_ANSWER_BYTES = 14, 24, 28
_COUNT, _COUNT_ANSWER_BYTES, _MOST_DEVICES = 15, 4, 64
CHILD = "localspec.engine.llama.worker:devices"
KEPT_TYPES = frozenset({"f32", "f16", "bf16", "q8_0", "q4_0"})
"""Caches that a worker's device is known to compute; keys and values must be alike, because others
have ended workers on CUDA (llama.cpp issue 27905)."""


@dataclass(frozen=True, slots=True)
class Worker:
    """Where it listens, and how much of its memory may be used; None: all that is free."""

    address: str
    limit_bytes: int | None = None

    @classmethod
    def of(cls, text: str) -> Self:
        """From `host[:port][=8GB]`. Raises UserError for anything else."""
        where, _, limit = text.partition("=")
        host, _, port = where.rpartition(":") if ":" in where else (where, "", str(PORT))
        size = _SIZE.fullmatch(limit)
        is_limit = size is not None or "=" not in text
        if not host or not port.isdigit() or not 0 < int(port) < 65536 or not is_limit:
            raise UserError(
                f"{text!r} is no worker: write host:port, perhaps with the memory that it may give,"
                f" e.g. 192.168.1.7:{PORT}=8GB"
            )
        limit_bytes = int(float(size[1]) * 1e9) if size else None
        return cls(f"{host}:{int(port)}", limit_bytes)

    def limited(self, free_bytes: int | None) -> int | None:
        """Of what is free there, what may be used."""
        known = [n for n in (free_bytes, self.limit_bytes) if n is not None]
        return min(known, default=None)


def addresses_of(workers: Sequence[str]) -> tuple[str, ...]:
    """Where they listen. Raises UserError for what is no worker."""
    return tuple(Worker.of(text).address for text in workers)


_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*GB?", re.IGNORECASE)


@cache
def devices_of(worker: Worker) -> tuple[Reported, ...]:
    """What it offers of its memory. Raises UserError where none answers."""
    address, started = worker.address, monotonic()
    greet(address)
    left_s = ANSWER_S - (monotonic() - started)
    ending = call(CHILD, address, left_s, limit_s=LOADING_S)
    ending.raise_known()
    if ending.is_timeout or ending.code == LATE:
        raise _silent(address)
    if not ending.result:
        raise _foreign(address, ending.reason)
    return tuple(
        replace(each, free_bytes=worker.limited(each.free_bytes)) for each in ending.result
    )


def _silent(address: str) -> UserError:
    return UserError(
        f"{address} does not answer as a worker: is it `localspec worker`, and does no other"
        " program use it now?"
    )


def _foreign(address: str, reason: str) -> UserError:
    return UserError(
        f"{address} is no worker of this version ({reason}): start the same localspec there with"
        " `localspec worker`"
    )


def greet(address: str) -> None:
    """Raise UserError for what is no worker, or one that another engine uses now: libllama would
    wait for that to end. In a thread, because looking up a name and reading byte by byte may take
    any time."""
    failed: list[UserError] = []

    def run() -> None:
        try:
            with _connected(address) as peer:
                _check_greeting(address, peer)
        except TimeoutError:
            failed.append(_silent(address))
        except OSError as error:
            failed.append(_foreign(address, error.strerror or str(error)))
        except UserError as error:
            failed.append(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(GREET_S)
    if failed or thread.is_alive():
        raise failed[0] if failed else _silent(address)


def _connected(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    try:
        return socket.create_connection((host, int(port)), CONNECT_S)
    except (OSError, UnicodeError) as error:  # no name of a machine has two dots in a row
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"no worker listens at {address} ({reason}): start `localspec worker"
            f" --listen {address}` there, or leave it out of --workers"
        ) from error


def _check_greeting(address: str, peer: socket.socket) -> None:
    _answer(address, peer, _HELLO, bytes(_HELLO_BYTES), _HELLO_ANSWER_BYTES)
    n_devices = int.from_bytes(_answer(address, peer, _COUNT, b"", _COUNT_ANSWER_BYTES), "little")
    if not 0 < n_devices <= _MOST_DEVICES:
        raise _foreign(address, f"it says that it has {n_devices:,} devices")


def _answer(address: str, peer: socket.socket, command: int, asked: bytes, n_bytes: int) -> bytes:
    peer.sendall(bytes([command]) + len(asked).to_bytes(8, "little") + asked)
    size = int.from_bytes(_received(address, peer, 8), "little")
    if size != n_bytes:
        raise _foreign(address, "it answers something else")
    return _received(address, peer, n_bytes)


def _received(address: str, peer: socket.socket, n_bytes: int) -> bytes:
    data = b""
    while len(data) < n_bytes:
        more = peer.recv(n_bytes - len(data))
        if not more:
            raise _foreign(address, "it hangs up")
        data += more
    return data


def check_types(type_k: str, type_v: str) -> None:
    """Raise UserError for cache types that could end a worker."""
    if type_k != type_v or type_k not in KEPT_TYPES:
        raise UserError(
            f"with --workers keys and values are both one of {', '.join(sorted(KEPT_TYPES))}:"
            f" {type_k}/{type_v} can end the worker"
        )
