"""Entries of models.toml by the names that other programs give the same models.

    llama3.2:1b-instruct-q8_0     `llama3.2-1b` in Q8_0
    qwen3:30b, smollm3            the one entry whose name goes on with sizes: `qwen3-30b-a3b`
    mistral-small3.2:24b          signs between the parts do not count, nor does a right size
    lmstudio:google/gemma-3-4b    nor does the owner before the name
    Qwen3-8B-GGUF, Qwen3-8B-Q8_0  `qwen3-8b`, in the quantization that a file's name ends with

A part of a name that means another model is never left out: dates, `qat`, `thinking`.
"""

import re

from localspec.registry.catalog import Entry, entry_of, load_catalog
from localspec.registry.variants import TYPE, quantization_of

_OWN_STEP = re.compile(r"ollama:|(?:docker|lmstudio):(?:[^/]+/)?", re.IGNORECASE)
"""What stands before a name of the catalog in those of other programs."""
_TAGGED = re.compile(r"([\w. -]+)(?::([\w.-]+))?")
_NEUTRAL = re.compile(r"[-_](instruct|it|chat|text|latest|gguf)(?=[-_]|$)", re.IGNORECASE)
"""Most entries are the tuned form of a model, so these words say nothing."""
_SIZE = re.compile(r"(\d+(?:\.\d+)?)b", re.IGNORECASE)
_END = re.compile(r"[ae]?\d+(\.\d+)?[bm]")
_NEAR = 0.12
"""By how much a size that a name rounds may differ from the published parameters."""


def split_type(name: str) -> tuple[str, str | None]:
    """`qwen3-8b:Q8_0` is a name and a quantization; other colons belong to a name."""
    plain, _, kind = name.rpartition(":")
    return (plain, kind.upper()) if plain and TYPE.fullmatch(kind) else (name, None)


def named_entry(name: str) -> tuple[Entry | None, str | None]:
    """The entry of a name and its quantization, also where another program spells it otherwise."""
    own = _OWN_STEP.sub("", name, count=1)
    plain, kind = split_type(own)
    entry = entry_of(plain)
    tagged = _TAGGED.fullmatch(plain)
    if entry is not None or tagged is None:
        return entry, kind
    typed = quantization_of(f"{tagged[1]}.gguf")
    base = TYPE.sub("", tagged[1]).rstrip("-_. ") if typed else tagged[1]
    tag = _NEUTRAL.sub("", f"-{tagged[2] or ''}")
    size = TYPE.sub("", tag).strip("-_")
    whole = f"{_NEUTRAL.sub('', base)}-{size}".strip("-")
    found = entry_of(whole) or _spelled(whole) or _of_size(base, size)
    return found, kind or quantization_of(f"{tag}.gguf") or typed


def _spelled(name: str) -> Entry | None:
    """The one entry whose name has these letters, perhaps without sizes at its end."""
    wanted, entries = _letters(name), load_catalog().values()
    same = [entry for entry in entries if wanted in map(_letters, (entry.name, *entry.aliases))]
    if same:
        return same[0] if len(same) == 1 else None
    begun = [entry for entry in entries if entry.head != "own" and wanted in _beginnings(entry)]
    return begun[0] if len(begun) == 1 else None


def _of_size(base: str, size: str) -> Entry | None:
    """`phi4-mini:3.8b`: the size is that of an entry whose name has none."""
    entry, number = entry_of(base) or _spelled(base), _SIZE.fullmatch(size)
    if entry is None or entry.params_b is None or number is None:
        return None
    return entry if abs(float(number[1]) / entry.params_b - 1) < _NEAR else None


def _letters(name: str) -> str:
    return re.sub(r"[-_: ]", "", name).casefold()


def _beginnings(entry: Entry) -> list[str]:
    """Its name without its last sizes."""
    parts = entry.name.split("-")
    found: list[str] = []
    while len(parts) > 1 and _END.fullmatch(parts.pop()):
        found.append(_letters("".join(parts)))
    return found
