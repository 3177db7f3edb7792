"""The models known by name: models.toml as shipped, and the user's own, which wins.

An entry in the wrong form is refused with the table and key of what is wrong. `named_entry` also
finds what other programs call otherwise:
    llama3.2:1b-instruct-q8_0     of Ollama: `llama3.2-1b` in Q8_0
    qwen3:30b                     without sizes at the end of a name: `qwen3-30b-a3b`
    mistral-small3.2:24b          signs between the parts do not count, nor does a right size
    lmstudio:google/gemma-3-4b    nor does the owner before the name
    Qwen3-8B-GGUF, Qwen3-8B-Q8_0  `qwen3-8b`, in the quantization that a file's name ends with
A part of a name that means another model is never left out: dates, `qat`, `thinking`.
"""

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from localspec import paths
from localspec.errors import UserError
from localspec.registry.variants import TYPE, quantization_of
from localspec.settings import CACHE_TYPES

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class Entry:
    """One named model: a file in a hub repository, and the package that also carries it, if any.

    `draft` is the catalog's name of a model that drafts for this one, which makes the two a pair;
    `kv_k` and `kv_v` are recommended cache types. `params_b`: billions of parameters, of which a
    token uses `active_params_b` (None: all of them). `checked` says when and where the entry was
    looked up, `verified` whether a pull has proved it. `head`: "own" for a prediction head in the
    file, else the file of one; `quants`: other quantizations in the repository; `released`: a month
    as 2026-02; `thinks`: "optional" or "always".
    """

    name: str
    title: str
    repository: str
    file: str
    license: str
    params_b: float | None = None
    active_params_b: float | None = None
    package: str | None = None
    draft: str | None = None
    kv_k: str | None = None
    kv_v: str | None = None
    good_for: str | None = None
    checked: str | None = None
    aliases: tuple[str, ...] = ()
    verified: bool = False
    head: str | None = None
    sampling: Mapping[str, float] | None = None
    thinks: str | None = None
    released: str | None = None
    quants: tuple[str, ...] = ()
    file_bytes: int | None = None


def read_models(path: Path) -> dict[str, Entry]:
    """The entries of a file by name. UserError names the file, the table and what is wrong."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', error)}") from error
    try:
        return _entries(document)
    except _WrongFormError as error:
        raise UserError(f"{path}: {error}; models.toml of localspec shows the form") from None


class _WrongFormError(Exception):
    """A clause that names the table and key."""


def _entries(document: dict[str, Any]) -> dict[str, Entry]:
    for key in document:
        if key != "models":
            raise _WrongFormError(f"has {key!r} beside models: write [models.NAME]")
    tables: Any = document.get("models", {})
    if not isinstance(tables, dict):
        raise _WrongFormError("has something else than tables as models: write [models.NAME]")
    entries = {name: _entry(name, table) for name, table in tables.items()}
    _check_aliases(entries)
    return entries


def _entry(name: str, table: Any) -> Entry:
    if not NAME.fullmatch(name) or name.endswith(".gguf"):
        raise _WrongFormError(f"{name!r} is no name: use letters, digits, dots and dashes")
    if not isinstance(table, dict):
        raise _WrongFormError(f"[models.{name}] is not a table")
    problem = next(filter(None, (_problem(key, value) for key, value in table.items())), None)
    missing = [key for key in _REQUIRED if key not in table]
    lacks = f"lacks {' and '.join(missing)}"
    if problem or missing:
        raise _WrongFormError(f"[models.{name}] {problem or lacks}")
    lists = {key: tuple(table.get(key, ())) for key in ("aliases", "quants")}
    values: dict[str, Any] = {**table, **lists}
    return Entry(name=name, **values)


def _check_aliases(entries: dict[str, Entry]) -> None:
    taken = dict.fromkeys(entries, "a name of its own")
    for entry in entries.values():
        for alias in entry.aliases:
            if alias in taken:
                raise _WrongFormError(
                    f"[models.{entry.name}] has the alias {alias!r}, which is {taken[alias]}"
                )
            taken[alias] = f"an alias of {entry.name}"


_REQUIRED = tuple(f.name for f in fields(Entry) if f.default is MISSING and f.name != "name")


def _problem(key: str, value: Any) -> str | None:
    """What is wrong with one key and its value."""
    kind = _KINDS.get(key)
    if kind is None:
        return f"has the unknown key {key!r}"
    wanted, is_right = kind
    return None if is_right(value) else f"has {value!r} for {key}, which is no {wanted}"


def _text(pattern: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(map(_text(NAME.pattern), value))


def _is_sampling(value: Any) -> bool:
    names = {"temp", "top_k", "top_p", "min_p"}
    return (
        isinstance(value, dict) and value.keys() <= names and all(map(_is_number, value.values()))
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


_CACHE = ("type of a cache", lambda value: value in CACHE_TYPES)
_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(
        ("title", "license", "package", "good_for", "checked"), ("text", _text(r"\S(.|\n)*"))
    ),
    "repository": ("owner/repository", _text(_REPOSITORY.pattern)),
    "file": (".gguf file of the repository", _text(r"[^\\:@]+\.gguf")),
    "draft": ("name of a model", _text(NAME.pattern)),
    "kv_k": _CACHE,
    "kv_v": _CACHE,
    **dict.fromkeys(("params_b", "active_params_b"), ("number above 0", _is_positive)),
    "aliases": ("list of names", _is_names),
    "verified": ("true or false", lambda value: isinstance(value, bool)),
    "head": ('"own" or owner/repository/FILE.gguf', _text(r"own|[\w.-]+/[\w.-]+/[^\\:@]+\.gguf")),
    "sampling": ("table of temp, top_k, top_p and min_p", _is_sampling),
    "thinks": ('"optional" or "always"', _text("optional|always")),
    "released": ("month as 2026-02", _text(r"20\d\d-(0[1-9]|1[0-2])")),
    "quants": ("list of names", _is_names),
    "file_bytes": ("number above 0", _is_positive),
}


STARTER = "starter"

_PACKAGE = Path(__file__).parent.parent
_SHIPPED = (_PACKAGE / "models.toml", _PACKAGE.parent / "models.toml")
"""In the wheel, and in a checkout."""


@cache
def _read_once(path: Path, changed_ns: int) -> dict[str, Entry]:
    """A file is read again when it has changed."""
    return read_models(path)


def load_catalog() -> dict[str, Entry]:
    """All entries by name. UserError where a file is not in the form of models.toml."""
    shipped = next(path for path in _SHIPPED if path.exists())
    own = paths.config_dir() / "models.toml"
    entries = dict(_read_once(shipped, shipped.stat().st_mtime_ns))
    if own.exists():
        entries |= _read_once(own, own.stat().st_mtime_ns)
    for entry in entries.values():
        if entry.draft is not None and entry.draft not in entries:
            raise UserError(
                f"[models.{entry.name}] of {own} has the draft {entry.draft!r}, which is no entry:"
                " name one, or add it"
            )
    return entries


def entry_of(name: str) -> Entry | None:
    """The entry of that name, whatever its case, or alias; entries that came last win."""
    catalog = load_catalog()
    if name in catalog:
        return catalog[name]
    entries = reversed(list(catalog.values()))
    wanted = name.casefold()
    known = ((known, entry) for entry in entries for known in (entry.name, *entry.aliases))
    return next((entry for text, entry in known if text.casefold() == wanted), None)


def no_such_model(name: str, others: Mapping[str, str]) -> UserError:
    """The error for an unknown name; `others`: names outside the catalog, by spelling."""
    catalog = load_catalog()
    known = {alias for entry in catalog.values() for alias in (entry.name, *entry.aliases)}
    spelled = {text.casefold(): name for text, name in others.items()}
    spelled |= {text.casefold(): text for text in sorted(known)}
    near = difflib.get_close_matches(name.casefold(), spelled, n=1)
    hint = (
        f"did you mean {spelled[near[0]]!r}?"
        if near
        else f"`localspec list --known` shows all {len(catalog)} names, {STARTER!r} is one"
    )
    return UserError(f"no model is called {name!r} and no such file is here: {hint}")


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
