"""Other machines that share the layers: are they there, and what do they offer?

A worker is asked by a socket first, then in a child process: libllama has no time limit and ends
the process where the other side is no worker.
"""

import json
import re
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import Self

from localspec.engine.child import run_module
from localspec.errors import UserError
from localspec.hardware.machine import Reported

PORT = 50052
"""llama.cpp's own."""
CONNECT_S, ANSWER_S = 0.7, 2.2
CHILD = "localspec.engine.llama.worker"
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
    address = worker.address
    _connect(address)
    found: list[Reported] = []

    def on_line(line: str) -> None:
        with suppress(ValueError, TypeError):
            found.append(Reported(**json.loads(line)))

    ending = run_module(CHILD, [address], on_line, ANSWER_S)
    ending.raise_known()
    if ending.is_timeout:
        raise UserError(f"{address} does not answer as a worker: is it `localspec worker`?")
    if not ending.is_success or not found:
        raise UserError(
            f"{address} is no worker of this version ({ending.reason}): start the same localspec"
            " there with `localspec worker`"
        )
    return tuple(replace(each, free_bytes=worker.limited(each.free_bytes)) for each in found)


def _connect(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), CONNECT_S).close()
    except OSError as error:
        raise UserError(
            f"no worker listens at {address} ({error.strerror or error}): start `localspec worker"
            f" --listen {address}` there, or leave it out of --workers"
        ) from error


def check_types(type_k: str, type_v: str) -> None:
    """Raise UserError for cache types that could end a worker."""
    if type_k != type_v or type_k not in KEPT_TYPES:
        raise UserError(
            f"with --workers keys and values are both one of {', '.join(sorted(KEPT_TYPES))}:"
            f" {type_k}/{type_v} can end the worker"
        )
