"""`localspec recommend`: what to run on a machine."""

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from localspec.cli.options import JsonFlag
from localspec.cli.output import fields_of, fitting, print_json, table_of
from localspec.display import console as console_of
from localspec.errors import UserError
from localspec.format import size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from localspec.forecast.known_machine import KnownMachine
    from localspec.forecast.recommend import Recommendation, UseCase
    from localspec.prediction.rates import Seconds, Speed

UseName = Literal["chat", "code", "long", "many-users"]
SHOWN = 10
WHOLE_FROM = 10
"""What is as large needs no decimal: its interval is wider."""
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(gb|gib|g|mb|mib|m|)", re.IGNORECASE)
_UNITS = {"": 2**30, "g": 2**30, "gb": 2**30, "gib": 2**30, "m": 2**20, "mb": 2**20, "mib": 2**20}
"""Memory is sold by powers of two, whatever the box says."""


def recommend(
    use: Annotated[
        UseName,
        typer.Option(
            help="chat: 8,192 tokens; code: 32,768; long: 65,536; many-users: eight with 8,192."
        ),
    ] = "chat",
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Memory of the device, e.g. 16GB.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help='Another machine, e.g. "RTX 4090". Default: this one.'),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Say which models to run on a machine, best first.

    Larger is better (a mixture counts as the geometric mean of all and active parameters), and a
    year newer counts as twice as large; a quantization's published loss, and less speed than is
    comfortable, count against it.

    localspec recommend --use code --device "RTX 4090"
    """
    from localspec.forecast.known_machine import KnownMachine
    from localspec.forecast.recommend import USES, recommendations
    from localspec.registry.catalog import load_catalog

    n_bytes = None if memory is None else _bytes(memory)
    machine = KnownMachine.here(n_bytes) if device is None else KnownMachine.named(device, n_bytes)
    asked = next(known for known in USES if known.name == use)
    offers = recommendations(list(load_catalog().values()), machine, asked)
    if as_json:
        print_json(document(offers, machine, asked))
    else:
        _show(offers, machine, asked)


def _bytes(text: str) -> int:
    found = _SIZE.fullmatch(text.strip())
    n_bytes = int(float(found[1]) * _UNITS[found[2].lower()]) if found else 0
    if n_bytes <= 0:
        raise UserError(f"--memory {text!r} is no size: write one as 16GB")
    return n_bytes


def document(
    offers: "Sequence[Recommendation]", machine: "KnownMachine", use: "UseCase"
) -> dict[str, Any]:
    """Plain values; an unknown one is null."""
    from localspec.forecast.recommend import RULE

    return {
        "use": asdict(use),
        "rule": RULE,
        "device": {
            **fields_of(machine, "name", "memory_bytes", "room_bytes"),
            "rates": machine.rates.source if machine.rates else None,
        },
        "models": [_offer_document(offer, use) for offer in offers],
    }


def _offer_document(offer: "Recommendation", use: "UseCase") -> dict[str, Any]:
    entry, memory = offer.entry, offer.memory
    return {
        **fields_of(entry, "name", "title", "repository", "license", "released"),
        **fields_of(entry, "params_b", "active_params_b", "thinks", "sampling"),
        **fields_of(offer, "reference", "quantization", "kld", "value"),
        **fields_of(offer.cache, "kv_k", "kv_v"),
        "draft": offer.draft.name if offer.draft else None,
        "head": _head(offer),
        "ctx": offer.n_ctx,
        "memory_bytes": memory.used_bytes,
        "memory": asdict(memory),
        "decode_tps": asdict(offer.decode) if offer.decode else None,
        "ttft_s": offer.first_token.mid if offer.first_token else None,
        "ttft_interval_s": asdict(offer.first_token) if offer.first_token else None,
        "command": command_of(offer, use),
    }


def command_of(offer: "Recommendation", use: "UseCase") -> str:
    """One line to copy: fetch it, and talk to it, or serve it, with these settings. The catalog's
    draft comes with a model and drafts for it."""
    name, cache = offer.reference, offer.cache
    alone = " --no-draft" if offer.entry.draft and not offer.draft else ""
    many = f" --parallel {use.n_users}" if use.n_users > 1 else ""
    is_usual = (cache.kv_k, cache.kv_v) == ("f16", "f16")
    types = "" if is_usual else f" --kv-k {cache.kv_k} --kv-v {cache.kv_v}"
    run = f"{'serve' if many else 'chat'} {name} --ctx {offer.n_ctx}{types}{many}"
    return f"localspec pull {name}{alone} && localspec {run}"


def _head(offer: "Recommendation") -> str | None:
    from localspec.forecast.recommend import head_of
    from localspec.registry.catalog import load_catalog

    return head_of(offer.entry, load_catalog().values())


_DROPPED = ("K/V", "context", "KL", "draft or head")
"""Columns that a narrow terminal drops, in this order."""


def _show(offers: "Sequence[Recommendation]", machine: "KnownMachine", use: "UseCase") -> None:
    from rich.text import Text

    from localspec.forecast.recommend import RULE

    console = console_of(width=None if sys.stdout.isatty() else 200)
    room = f"{size(machine.room_bytes)} of {size(machine.memory_bytes)} for a model"
    rates = machine.rates.source if machine.rates else "no speed is known without measuring"
    console.print(Text(f"{machine.name}: {room}; {rates}\n"))
    if not offers:
        less = "" if use.name == "chat" else "--use chat, or "
        raise UserError(
            f"no model that localspec knows fits into {size(machine.room_bytes)} with"
            f" {use.n_ctx:,} tokens of context: try {less}more --memory"
        )
    console.print(_table(console, offers[:SHOWN], use))
    console.print(Text(f"\n{RULE}"))
    console.print(Text(f"\n  {command_of(offers[0], use)}"), soft_wrap=True)  # copied as one line


def _table(console: "Console", offers: "Sequence[Recommendation]", use: "UseCase") -> "Table":
    """As many columns as fit the terminal, without the least needed."""
    each = " each" if use.n_users > 1 else ""
    columns: dict[str, Callable[[Recommendation], str]] = {
        "model": lambda offer: offer.entry.name,
        "type": lambda offer: offer.quantization,
        "K/V": lambda offer: "/".join(dict.fromkeys((offer.cache.kv_k, offer.cache.kv_v))),
        "draft or head": lambda offer: _drafter(offer),
        "context": lambda offer: f"{offer.n_ctx:,}",
        "memory": lambda offer: size(offer.memory.used_bytes),
        f"tok/s{each}": lambda offer: _interval(offer.decode),
        "first token": lambda offer: _interval(offer.first_token, " s"),
        "KL": lambda offer: "-" if offer.kld is None else f"{offer.kld:.3f}",
    }

    def made(names: "Sequence[str]") -> "Table":
        return table_of(*names, rows=[[columns[name](offer) for name in names] for offer in offers])

    return fitting(console, made, tuple(columns), *_DROPPED)


def _drafter(offer: "Recommendation") -> str:
    head = _head(offer)
    if offer.draft:
        return offer.draft.name
    return "-" if head is None else "head"


def _interval(found: "Speed | Seconds | None", unit: str = "") -> str:
    """The middle, with its interval in as many digits."""
    if found is None:
        return "-"
    digits = 0 if found.mid >= WHOLE_FROM else 1
    low, mid, high = (f"{value:,.{digits}f}" for value in (found.low, found.mid, found.high))
    return f"{mid}{unit} ({low}–{high})"  # noqa: RUF001
