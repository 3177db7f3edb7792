"""llama-server's flags as those of `localspec serve`.

A flag that asks for what localspec does not do ends the program with a sentence. Flags about speed
that the engine chooses itself are passed over.
"""

from collections.abc import Sequence

RENAMED = {"--host": "--host", "--port": "--port", "--alias": "--alias", "--api-key": "--api-key",
           "--parallel": "--parallel", "--threads": "--threads",
           "--slot-save-path": "--slot-save-path", "--chat-template": "--template",
           "--chat-template-file": "--template"}  # fmt: skip
DEFAULTS = {"--temp": "temperature", "--seed": "seed", "--n-predict": "n_predict"}
"""Flags of fields that a request may have."""
EFFORTS = {"off": "none", "on": "on", "auto": "on"}
"""llama-server tells every template that thinking is on, unless it is told otherwise."""
OFF = {"--no-slots": "slots", "--no-ui": "page"}
REFUSED = ("--embedding", "--reranking", "--lora", "--mmproj-url", "--tools",
           "--mcp-servers-config", "--mcp-servers-json", "--models-dir", "--models-preset",
           "--media-path", "--spec-synth-len", "--spec-synth-rates",
           "--context-shift")  # fmt: skip
WITH_VALUE = ("--hf-repo", "--hf-file", "--model", "--model-url", "--batch-size", "--ubatch-size",
              "--n-gpu-layers", "--pooling", "--tags", "-ctk", "-ctv", "-fa", "--models-max",
              "--grp-attn-n", "--grp-attn-w", "--spec-draft-n-min", "--reasoning-format",
              "--cache-ram")  # fmt: skip
"""Passed over, with their values. Models of the hub cannot be had: the one that is given stands
for them."""


def command(words: Sequence[str], model: str, localspec: str) -> list[str]:
    """The command that serves."""
    given = _pairs(words)
    for flag in REFUSED:
        if flag in given:
            raise SystemExit(f"{flag} is not supported by localspec")
    made = [localspec, "serve", model]
    made += [word for flag, new in RENAMED.items() if flag in given for word in (new, given[flag])]
    for flag, field in DEFAULTS.items():
        if flag in given and given[flag] != "-1":
            made += ["--default", f"{field}={given[flag]}"]
    origins = given.get("--cors-origins", "*")
    made += [] if origins == "localhost" else ["--cors", origins]
    if given.get("--reasoning") in EFFORTS:
        made += ["--default", f"reasoning_effort={EFFORTS[given['--reasoning']]}"]
    made += ["--default", "verbose=true"] if "--verbose" in given else []
    off = [name for flag, name in OFF.items() if flag in given]
    off += [] if "--metrics" in given else ["metrics"]
    made += [word for name in off for word in ("--without", name)]
    if "--sleep-idle-seconds" in given:
        made += ["--idle-unload", str(float(given["--sleep-idle-seconds"]) / 60)]
    return made + _context(given) + _speculation(given)


def _context(given: dict[str, str]) -> list[str]:
    """llama-server divides a context by its slots, unless their cells are one pool."""
    if "--ctx-size" not in given:
        return []
    n = int(given["--ctx-size"])
    n_slots = 1 if "--kv-unified" in given else int(given.get("--parallel", "1"))
    return ["--ctx", str(n // n_slots)]


def _speculation(given: dict[str, str]) -> list[str]:
    if "--model-draft" not in given:
        return ["--spec", "none"]
    draft = ["--draft", given["--model-draft"], "--spec", "draft"]
    return [*draft, "--draft-max", given.get("--spec-draft-n-max", "3")]


def _pairs(words: Sequence[str]) -> dict[str, str]:
    """Flags with their values; empty ones for flags alone."""
    pairs: dict[str, str] = {}
    others = {
        "--cors-origins",
        "--ctx-size",
        "--model-draft",
        "--reasoning",
        "--spec-draft-n-max",
        "--spec-type",
        "--sleep-idle-seconds",
    }
    takes = {*RENAMED, *DEFAULTS, *WITH_VALUE, *REFUSED, *others}
    i = 0
    while i < len(words):
        flag = words[i]
        has_value = flag in takes and i + 1 < len(words) and not words[i + 1].startswith("--")
        pairs[flag] = words[i + 1] if has_value else ""
        i += 2 if has_value else 1
    return pairs
