"""The name inside what people copy: a command of another program, a link, a line of a file.

    ollama run llama3.2:1b, FROM llama3.2:1b          ollama:llama3.2:1b
    lms get qwen/qwen3-8b@q4_k_m                      lmstudio:qwen/qwen3-8b:q4_k_m
    Llama.from_pretrained(repo_id="owner/repo", filename="*q8_0.gguf")
    lmstudio://open_from_hf?model=owner/repo          hf:owner/repo
    "model": "hf.co/owner/repo:Q8_0",                 hf.co/owner/repo:Q8_0
    see https://huggingface.co/owner/repo.            https://huggingface.co/owner/repo

`command_line.py` reads commands, `sites.py` pages. Signs that a word processor or a messenger put
in place of a shell's, and those that cannot be seen, are put right.
"""

import re
from urllib.parse import parse_qs, unquote, urlsplit

from localspec.errors import UserError
from localspec.gguf.hub_name import is_of_hub
from localspec.registry.command_line import name_in_command, of_hub
from localspec.registry.sites import ADDRESSES, FILE_ADDRESS, WINDOWS_PATH, fetchable, short_name
from localspec.registry.variants import TYPE

QUOTES = "\"'`<>“”«»„\u2018\u2019\u201a"
_UNSEEN = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"))
_HYPHENS = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2212"), "-")
_SIGNS = _UNSEEN | _HYPHENS | {0x2014: "--", 0xA0: " ", 0xFF1A: ":", 0xFF0F: "/"}
_STOPS = ".,;…)]}"
_BULLET = re.compile(r"^(?:[-*•]\s+|@)(?=\S)")
_BARE_ADDRESS = re.compile(r"^//(?=(?:www\.)?(?:hf\.co|huggingface\.co)/)", re.IGNORECASE)
_PYTHON = re.compile(r"""(?:(\w+)\s*=\s*)?\[?\s*["']([^"']+)["']""")
_CALLS = ("from_pretrained(", "hf_hub_download(", "snapshot_download(", "Llama(")
_FILES = ("filename", "gguf_file", "allow_patterns")
_SETTING = re.compile(
    r"""["']?[\w-]*(?:model|repo|checkpoint)[\w-]*["']?(?:\s*=\s*|["']?:\s+)["']?([^"',\s]+)["']?,?""",
    re.IGNORECASE,
)
_LINK = re.compile(r"([a-z][a-z0-9+.-]*):(?://|\?)(.+)", re.IGNORECASE)
_IN_LINK = re.compile(r"(?:^|/)(?:huggingface|hf)/([^/?#]+/[^/?#]+)", re.IGNORECASE)
_WITH_TYPE = re.compile(r"(\S+/\S+)(?:\s+[(\[]?|@)([\w.-]+)(?:,[^()]*)?[)\]]?")
_HEADING = re.compile(r"([\w.-]+)\s*/\s*([\w.-]+(?::\S+)?)")
_OF_GGUF = re.compile(r"[\w.-]+/[\w.-]*gguf(?::\S+)?|[\w.-]+/[\w.-]+:([\w-]+)", re.IGNORECASE)
_MARKDOWN = re.compile(r"\[[^\]]*\]\((\S+)\)[.,;]?")
_SSH = re.compile(r"(?:ssh://)?git@(hf\.co|huggingface\.co)[:/]", re.IGNORECASE)
_CACHE_FOLDER = re.compile(
    r"models--([\w.-]+?)--([\w.-]+)(?:[/\\]snapshots[/\\]\w+((?:/[\w.-]+)+))?"
)
_BACKSLASHED = re.compile(r"(?:hf:)?\w[\w.-]*(?:\\\w[\w.:-]*)+")


def plain_name(text: str) -> str:
    """The name that a text means, with the prefix of its origin; itself if it is a name already.

    Raises UserError for a link that leads to no model.
    """
    name = _without_frame(text)
    readings = (_in_python, name_in_command, _in_setting, _with_type, _of_heading, _in_sentence)
    found = next(filter(None, (reading(name) for reading in readings)), name)
    found = _SSH.sub(r"\1/", found)
    folder = _CACHE_FOLDER.fullmatch(found)
    found = f"hf:{folder[1]}/{folder[2]}{folder[3] or ''}" if folder else _slashed(found)
    short = short_name(found)
    return _of_link(found) if short is None else fetchable(short)


def _slashed(name: str) -> str:
    """`owner\\repo`, as a path of Windows copies a name; a drive or one file is a path."""
    is_name = _BACKSLASHED.fullmatch(name) and not (
        name.lower().endswith(".gguf") and name.count("\\") < 2
    )
    return name.replace("\\", "/") if is_name else name


def _without_frame(text: str) -> str:
    """Without quotes, line ends of a shell, Markdown's brackets, and the stop after a name."""
    name = re.sub(r"[\\`^]\r?\n", " ", text.translate(_SIGNS)).strip()
    name = _BULLET.sub("", name, count=1)
    linked = _MARKDOWN.fullmatch(name)
    name = _BARE_ADDRESS.sub("https://", linked[1] if linked else name)
    if _in_python(name) or _is_path(name):
        return name
    return _trimmed(_BULLET.sub("", name.strip(QUOTES).strip(), count=1))


def _is_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or WINDOWS_PATH.match(name) is not None


def _trimmed(name: str) -> str:
    """Without the signs around one word; a text of several words ends as a command does."""
    name = name.strip(QUOTES).strip()
    if re.search(r"\s", name):
        return name
    is_address = "://" in name
    name = name.rstrip(_STOPS + QUOTES).lstrip("([{" + QUOTES)
    return re.sub(r"(%20|\\n)+$", "", name) if is_address else name.rstrip("/") or name


def _in_python(text: str) -> str | None:
    """Of a call that loads or downloads a model."""
    call = next((call for call in _CALLS if call in text), None)
    if call is None:
        return None
    given = text.partition(call)[2]
    values = {name or "repo_id": value for name, value in reversed(_PYTHON.findall(given))}
    repository = values.get("repo_id") or values.get("model_path")
    file = next((values[name] for name in _FILES if name in values), None)
    return repository and of_hub(repository, file, values.get("revision"))


def _in_setting(text: str) -> str | None:
    """Of a line of JSON, YAML or an environment: `model: hf.co/owner/repo`."""
    found = _SETTING.fullmatch(text)
    return found and _trimmed(found[1])


def _with_type(text: str) -> str | None:
    """`owner/repo (Q4_K_M)`, as a list of files shows it, and `owner/repo@Q4_K_M`."""
    found = _WITH_TYPE.fullmatch(text)
    return f"{found[1]}:{found[2]}" if found and TYPE.fullmatch(found[2]) else None


def _of_heading(text: str) -> str | None:
    """`owner / repo`, as the heading of a page is copied."""
    found = _HEADING.fullmatch(text) if re.search(r"\s", text) else None
    return found and f"{found[1]}/{found[2]}"


def _in_sentence(text: str) -> str | None:
    """The one address or name of the hub in a text of several words that is no path."""
    words = [_trimmed(word) for word in text.split()]
    if len(words) < 2 or _is_path(text):
        return None
    found = {word for word in words if _is_name(word)}
    return found.pop() if len(found) == 1 else None


def _is_name(word: str) -> bool:
    """Whether a word in a sentence can be nothing but the name of a model."""
    if word.lower().startswith(ADDRESSES) or is_of_hub(word):
        return True
    found = None if word.lower().endswith(".gguf") else _OF_GGUF.fullmatch(word)
    return found is not None and (found[1] is None or TYPE.fullmatch(found[1]) is not None)


def _of_link(text: str) -> str:
    """The model of a link that opens another program; UserError where it tells none."""
    link = None if is_of_hub(text) or WINDOWS_PATH.match(text) else _LINK.fullmatch(text)
    if link is None or text.lower().startswith((*ADDRESSES, FILE_ADDRESS)):
        return text
    query = {key.lower(): value[0] for key, value in parse_qs(urlsplit(text).query).items()}
    model = next((query[key] for key in ("model", "hf-model-id", "repo") if key in query), None)
    inside = _IN_LINK.search(unquote(link[2]))
    if model is None and inside is None:
        raise UserError(
            f"{text!r} is an address of {link[1].lower()}:, which localspec does not read:"
            " name hf:owner/repo, an http(s) address, or a file"
        )
    return of_hub(model or (inside[1] if inside else ""), query.get("file"))
