"""What others have published on the quality of weight and cache types, for orientation.

`published.csv` carries each figure with its model and source; a model of another size or family
loses other amounts, and so do builds before the rotation of quantized caches (llama.cpp PR 21038).

The text that ships: the Queries of Isaac Newton's Opticks, about 100 kB of old English prose.

Fourth edition, London 1730, Book Three: long in the public domain. Transcribed by the volunteers of
pgdp.net (Suzanne Lybarger, Steve Harris, Josephine Paolucci and others); taken from Go's test data
(`testdata/Isaac.Newton-Opticks.txt` in Debian's golang-1.19-src 1.19.8-2), with paragraphs on one
line each and the marks of italics taken out.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from localspec.errors import UserError


@dataclass(frozen=True, slots=True)
class Published:
    """One figure: mean KL divergence in nats a token of a type in a model."""

    model: str
    kind: str
    kld: float
    source: str


def of_weights(kind: str) -> tuple[Published, ...]:
    """Of a weight type, such as Q4_K_M, made without an importance matrix."""
    return tuple(p for p in _figures("weights") if p.kind.lower() == kind.lower())


def of_cache(kv_k: str, kv_v: str) -> tuple[Published, ...]:
    """Of a pair of cache types with f16 weights, or with whatever that source had."""
    names = {f"f16/{kv_k}/{kv_v}"} | ({kv_k} if kv_k == kv_v else set())
    return tuple(p for p in _figures("kv") if p.kind in names)


@cache
def _figures(what: str) -> tuple[Published, ...]:
    text = (files("localspec.quality") / "published.csv").read_text(encoding="utf-8")
    return tuple(
        Published(row["model"], row["type"], float(row["kld"]), row["source"])
        for row in csv.DictReader(text.splitlines())
        if row["what"] == what and row["kld"]
    )


NAME = "Newton's Opticks (1730), the Queries"


@cache
def shipped_text() -> str:
    """The whole of it."""
    return (files("localspec.quality") / "opticks.txt").read_text(encoding="utf-8")


def text_of(path: Path) -> str:
    """A text of the user's. UserError where it cannot be read or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"the text {path} cannot be read ({reason}): check --text") from error
    except UnicodeDecodeError as error:
        raise UserError(f"the text {path} is not UTF-8: convert it to UTF-8") from error
