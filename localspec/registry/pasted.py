"""The name inside what people copy: a command of another program, a link, a line of a file.

    llama-server -hf owner/repo:Q4_K_M -ngl 99        hf:owner/repo:Q4_K_M
    hf download owner/repo file.gguf                  hf:owner/repo/file.gguf
    ollama run llama3.2:1b, FROM llama3.2:1b          ollama:llama3.2:1b
    docker model run ai/smollm2:360M-Q4_K_M           docker:ai/smollm2:360M-Q4_K_M
    lms get qwen/qwen3-8b@q4_k_m                      lmstudio:qwen/qwen3-8b:q4_k_m
    modelscope download --model owner/repo file.gguf  ms:owner/repo/file.gguf
    Llama.from_pretrained(repo_id="owner/repo", filename="*q8_0.gguf")
    lmstudio://open_from_hf?model=owner/repo          hf:owner/repo

Options are those of the programs' own help. A command is read, never run. `sites.py` reads pages.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

from localspec.errors import UserError
from localspec.gguf.hub_name import is_of_hub
from localspec.registry.sites import ADDRESSES, FILE_ADDRESS, short_name
from localspec.registry.variants import TYPE, quantization_of

QUOTES = "\"'`<>“”"
_ORIGINS = {
    "ollama": "ollama:",
    "from": "ollama:",
    "docker": "docker:",
    "lms": "lmstudio:",
    "hf": "hf:",
    "huggingface-cli": "hf:",
    "modelscope": "ms:",
    "vllm": "hf:",
    "sglang": "hf:",
}
"""Whose names a program means, by its first word."""
_OTHERS = re.compile(
    "aria2c|curl|git|gpustack|jan|koboldcpp|lemonade(-server)?|llama|llamafile|llm|local-?ai"
    "|localspec|mistralrs|python3?|ramalama|wget|llama-.*|mlx_lm.*"
)
_STEPS = re.compile(
    "bench|chat|checkout|clone|create|download|generate|get|install|launch|lfs|load|models?"
    "|predict|pull|run|serve|show|start"
)
"""Words between a program and the name."""
_HUB = ("-hf", "-hfr", "--hf-repo")
_MODEL = (*_HUB, "--repo-id", "--repo", "--checkpoint", "-m", "--model")
_DOCKER = ("-dr", "--docker-repo")
_FILE = ("-hff", "--hf-file", "--filename", "--file", "--include")
_ADDRESS = ("-mu", "--model-url", "--url")
_REVISION = ("--revision",)
_VALUES = [
    "--local-dir",
    "--cache-dir",
    "--local_dir",
    "--cache_dir",
    "--repo-type",
    "--token",
    "-o",
    "-O",
    "-d",
]
"""Options whose value is no name."""
_PYTHON = re.compile(r"""(?:(\w+)\s*=\s*)?["']([^"']+)["']""")
_LINK = re.compile(r"([a-z][a-z0-9+.-]*)://(.+)", re.IGNORECASE)
_IN_LINK = re.compile(r"(?:^|/)(?:huggingface|hf)/([^/?#]+/[^/?#]+)", re.IGNORECASE)
_WITH_TYPE = re.compile(r"(\S+/\S+)\s+[(\[]?([\w.-]+)[)\]]?")
_MARKDOWN = re.compile(r"\[[^\]]*\]\((\S+)\)[.,;]?")
_SSH = re.compile(r"(?:ssh://)?git@(hf\.co|huggingface\.co)[:/]", re.IGNORECASE)
_FILE_OR_PATTERN = re.compile(r"\.gguf$|\*", re.IGNORECASE)
_CACHE_FOLDER = re.compile(r"models--([\w.-]+?)--([\w.-]+)")
WINDOWS_PATH = re.compile(r"[A-Za-z]:[\\/](?!/)|\\\\")


@dataclass(frozen=True, slots=True)
class _Command:
    """A pasted command: the origin of its names, its options and the words that are none."""

    origin: str
    options: Mapping[str, str]
    words: Sequence[str]

    def option(self, names: Sequence[str]) -> str | None:
        return next((self.options[name] for name in names if name in self.options), None)


def plain_name(text: str) -> str:
    """The name that a text means, with the prefix of its origin; itself if it is a name already.

    Raises UserError for a link that leads to no model.
    """
    name = _without_frame(text)
    found = _in_python(name) or _in_command(name) or _with_type(name) or name
    found = _SSH.sub(r"\1/", found)
    folder = _CACHE_FOLDER.fullmatch(found)
    found = f"hf:{folder[1]}/{folder[2]}" if folder else found
    short = short_name(found)
    return _of_link(found) if short is None else short


def _without_frame(text: str) -> str:
    """Without quotes, line ends of a shell, Markdown's brackets, and the stop after an address."""
    name = re.sub(r"[\\`^]\r?\n", " ", text).strip().strip(QUOTES).strip()
    linked = _MARKDOWN.fullmatch(name)
    name = linked[1] if linked else name
    is_address = "://" in name or is_of_hub(name)
    return re.sub(r"[.,;)\]]+$", "", name) if is_address and " " not in name else name


def _in_python(text: str) -> str | None:
    """Of a call of `from_pretrained` or `hf_hub_download`."""
    _, call, given = text.partition("from_pretrained(")
    if not call:
        _, call, given = text.partition("hf_hub_download(")
    if not call:
        return None
    values = {name or "repo_id": value for name, value in reversed(_PYTHON.findall(given))}
    repository = values.get("repo_id") or values.get("model_path")
    return repository and _of_hub(repository, values.get("filename"), values.get("revision"))


def _in_command(text: str) -> str | None:
    """The name in a command; None for what is none."""
    command = _read(text)
    if command is None:
        return None
    docker, address = command.option(_DOCKER), command.option(_ADDRESS)
    if docker is not None or address is not None:
        return address if docker is None else f"docker:{docker}"
    model, words = command.option(_MODEL), list(command.words)
    if model is None:
        if not words:
            return None
        model = words.pop(0)
    file = command.option(_FILE) or next(filter(_FILE_OR_PATTERN.search, words), None)
    is_of_llama_cpp = command.option(_HUB) is not None
    is_file_of_hub = "/" in model and (file is not None or is_of_llama_cpp)
    if command.origin in ("hf:", "ms:") or (not command.origin and is_file_of_hub):
        return _of_hub(model, file, command.option(_REVISION), command.origin or "hf:")
    return _of(command.origin, model)


def _read(text: str) -> _Command | None:
    words = _words(text)
    while words and (words[0] in ("$", ">", "!", "sudo", "uvx") or re.match(r"\w+=", words[0])):
        del words[0]
    if not words or (len(words) < 2 and not words[0].startswith("-")):
        return None
    program = re.split(r"[/\\]", words[0])[-1].lower().removesuffix(".exe")
    is_known = program in _ORIGINS or _OTHERS.fullmatch(program) is not None
    if not (is_known or words[0].startswith("-")):
        return None
    options, rest = _options(words[is_known:])
    while rest and _STEPS.fullmatch(rest[0].lower()):
        del rest[0]
    return _Command(_ORIGINS.get(program, ""), options, rest)


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text, posix="\\" not in text)
    except ValueError:  # a quote that is not closed
        return text.split()


def _options(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The values of the options that can carry a name, and the words that are no options."""
    carrying = (*_MODEL, *_DOCKER, *_FILE, *_ADDRESS, *_REVISION, *_VALUES)
    options: dict[str, str] = {}
    rest: list[str] = []
    wanted: str | None = None
    for word in words:
        name, is_joined, value = word.partition("=")
        name = name.replace("_", "-") if name.startswith("--") else name
        if wanted is not None:
            options[wanted], wanted = word, None
        elif not word.startswith("-"):
            rest.append(word)
        elif name in carrying and is_joined:
            options[name] = value
        elif name in carrying:
            wanted = name
    return options, rest


def _of_hub(
    repository: str, file: str | None, revision: str | None = None, origin: str = "hf:"
) -> str:
    """Of a repository and a file or pattern: `*Q8_0.gguf` is a quantization."""
    name = _of(origin, repository)
    if file is not None and "*" in file:
        kind = quantization_of(file.strip("*")) or quantization_of(f"-{file.strip('*')}")
        name += f":{kind}" if kind else ""
    elif file is not None:
        name += f"/{file}"
    return name + (f"@{revision}" if revision else "")


def _of(origin: str, name: str) -> str:
    """A name with the prefix of its origin, unless it says where it is from."""
    if not origin or is_of_hub(name) or "://" in name or short_name(name) != name:
        return name
    if origin == "lmstudio:":
        base, at, kind = name.partition("@")
        is_type = at and TYPE.fullmatch(kind)
        name = f"{base}:{kind}" if is_type else name
        return f"hf:{name}" if "/" in base and base.lower().endswith("gguf") else origin + name
    return origin + name


def _with_type(text: str) -> str | None:
    """`owner/repo (Q4_K_M)`, as a list of files shows it."""
    found = _WITH_TYPE.fullmatch(text)
    return f"{found[1]}:{found[2]}" if found and TYPE.fullmatch(found[2]) else None


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
    return _of_hub(model or (inside[1] if inside else ""), query.get("file"))
