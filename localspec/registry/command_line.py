"""The model in a command of another program. Commands are read, never run.

    llama-server -hf owner/repo:Q4_K_M -ngl 99        hf:owner/repo:Q4_K_M
    hf download owner/repo file.gguf                  hf:owner/repo/file.gguf
    docker run IMAGE -hf owner/repo:Q8_0              hf:owner/repo:Q8_0
    npx -y node-llama-cpp pull hf:owner/repo          hf:owner/repo

Options are those of the programs' own help. Of several commands the first that names a model
counts, and before all others that of a program which is known here.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from localspec.gguf.hub_name import is_of_hub
from localspec.registry.sites import short_name
from localspec.registry.variants import TYPE, quantization_of

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
    "kaggle": "https://www.kaggle.com/models/",
}
"""Whose names a program means, by its first word."""
_OTHERS = re.compile(
    "aria2c|curl|git|gpustack|jan|koboldcpp|lemonade(-server)?|llama|llamafile|llm|local-?ai"
    "|localspec|mistralrs(-server)?|node-llama-cpp|python3?|ramalama|wget|llama-.*|mlx_lm.*"
)
_STEPS = re.compile(
    "bench|chat|checkout|clone|cp|create|download|generate|get|gguf|install|instances|launch|lfs|load"
    "|models?|predict|pull|push|rm|run|serve|show|start|stop|versions"
)
"""Words between a program and the name."""
_BEFORE = re.compile(
    "docker|env|exec|export|nohup|npx|pipx|podman|ps|sudo|time|uv|uvx|winpty", re.IGNORECASE
)
"""Programs that start another one."""
_HUB = ("-hf", "-hfr", "--hf-repo")
_MODEL = (*_HUB, "--repo-id", "--repo", "--checkpoint", "-m", "--model")
_DOCKER = ("-dr", "--docker-repo")
_FILE = ("-hff", "--hf-file", "--filename", "--file", "--specific-file", "--include", "-f")
_ADDRESS = ("-mu", "--model-url", "--url")
_REVISION = ("--revision",)
_VALUES = (
    "--local-dir", "--cache-dir", "--local_dir", "--cache_dir", "--repo-type", "--token",
    "-o", "-O", "-d", "-q", "--quantize",
)  # fmt: skip
"""Options whose value is no name."""
_BORDER = re.compile(r"\s*(?:\n|&&|\|\||;|\s[|&](?=\s|$))\s*")
_PROMPT = re.compile(r"[$>!%#]|\w+=\S*|PS|[A-Za-z]:\\\S*>")
MODELFILE = "Modelfile"
"""Of which `ollama create` makes a model where no other is named."""
_ASKED = re.compile(r"""["']model["']\s*:\s*["']([^"']+)["']""")
_ANY_ADDRESS = re.compile(r"curl.*https?://")
"""A request to a server names its model inside."""
_FILE_OR_PATTERN = re.compile(r"\.gguf$|\*", re.IGNORECASE)
_PATH = re.compile(r"[./~]|[A-Za-z]:[\\/](?!/)|\\\\")


@dataclass(frozen=True, slots=True)
class _Command:
    """A pasted command: the origin of its names, its options and the words that are none."""

    origin: str
    options: Mapping[str, str]
    words: Sequence[str]
    is_known: bool
    makes_a_model: bool = False
    """`ollama create`: of what a file says, under a name that nothing has yet."""

    def option(self, names: Sequence[str]) -> str | None:
        return next((self.options[name] for name in names if name in self.options), None)

    @property
    def file(self) -> str | None:
        named = self.option(_FILE)
        is_prompt = named is not None and "-f" in self.options and not named.endswith(".gguf")
        return None if is_prompt and not self.makes_a_model else named


def name_in_command(text: str) -> str | None:
    """The name in a command, with the prefix of its origin; None for what is none."""
    asked = _ASKED.search(text)
    if asked and _ANY_ADDRESS.search(text):
        return asked[1]
    read = [command for part in _BORDER.split(text) if (command := _read(part))]
    known_first = sorted(read, key=lambda command: not command.is_known)
    return next(filter(None, map(_name_in, known_first)), None)


def of_hub(
    repository: str, file: str | None, revision: str | None = None, origin: str = "hf:"
) -> str:
    """Of a repository and a file or pattern: `*Q8_0.gguf` is a quantization."""
    name = _of(origin, repository)
    if file is not None and "*" in file:
        kind = quantization_of(file.strip("*")) or quantization_of(f"-{file.strip('*')}")
        name += f":{kind or file}"
    elif file is not None:
        name += f"/{file}"
    return name + (f"@{revision}" if revision else "")


def _name_in(command: _Command) -> str | None:
    if command.makes_a_model:
        file = command.file or MODELFILE
        return file if _PATH.match(file) else f"./{file}"
    docker, address = command.option(_DOCKER), command.option(_ADDRESS)
    if docker is not None or address is not None:
        return address if docker is None else f"docker:{docker}"
    model, words = command.option(_MODEL), list(command.words)
    is_of_llama_cpp = command.option(_HUB) is not None
    origin = "" if model is not None and command.origin == "docker:" else command.origin
    if model is None:
        if not words:
            return None
        model = words.pop(0)
    file = command.file or next(filter(_FILE_OR_PATTERN.search, words), None)
    is_file_of_hub = "/" in model and (file is not None or is_of_llama_cpp)
    if origin in ("hf:", "ms:") or (not origin and is_file_of_hub):
        return of_hub(model, file, command.option(_REVISION), origin or "hf:")
    return _of(origin, model)


def _read(text: str) -> _Command | None:
    words = _from_program(_words(text))
    if not words or (len(words) < 2 and not words[0].startswith("-")):
        return None
    program = _program(words[0])
    is_option = words[0].startswith("-")
    is_known = is_option or _is_known(program)
    if not (is_known or _is_step_of_unknown(words)):
        return None
    options, rest = _options(words if is_option else words[1:])
    if program == "docker" and "model" not in rest[:1]:
        rest = []  # an image, not a model
    makes_a_model = program == "ollama" and rest[:1] == ["create"]
    while rest and _STEPS.fullmatch(rest[0].lower()):
        del rest[0]
    named = [word for word in rest if not word.isdecimal() and not word.endswith((".py", ".sh"))]
    origin = _ORIGINS.get(program, "")
    return _Command(origin, options, named, is_known, makes_a_model)


def _from_program(words: list[str]) -> list[str]:
    """Without a prompt, variables, and the programs that start another one."""
    while words and _PROMPT.fullmatch(words[0]):
        del words[0]
    if words and _BEFORE.fullmatch(words[0]) and words[1:2] != ["model"]:
        known = [_is_known(_program(word)) for word in words]
        inner = (i for i in range(1, len(words) - 1) if known[i] and not known[i + 1])
        return words[next(inner, 0) :]
    return words


def _program(word: str) -> str:
    return re.split(r"[/\\]", word)[-1].lower().removesuffix(".exe")


def _is_known(program: str) -> bool:
    return program in _ORIGINS or _OTHERS.fullmatch(program) is not None


def _is_step_of_unknown(words: Sequence[str]) -> bool:
    """`anything run NAME`: programs that nobody has heard of here."""
    is_plain = re.fullmatch(r"[a-z][a-z0-9_.-]*", words[0]) is not None
    return is_plain and len(words) > 2 and _STEPS.fullmatch(words[1]) is not None


def _words(text: str) -> list[str]:
    try:
        words = shlex.split(text, posix="\\" not in text)
    except ValueError:  # a quote that is not closed
        words = text.split()
    return [word.strip("\"'") if "\\" in text else word for word in words]


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


def _of(origin: str, name: str) -> str:
    """A name with the prefix of its origin, unless it says where it is from."""
    is_whole = is_of_hub(name) or "://" in name or short_name(name) != name
    if not origin or is_whole or _PATH.match(name):
        return name
    if origin == "lmstudio:":
        base, at, kind = name.partition("@")
        is_type = at and TYPE.fullmatch(kind)
        name = f"{base}:{kind}" if is_type else name
        return f"hf:{name}" if "/" in base and base.lower().endswith("gguf") else origin + name
    return origin + name
