"""The process that `renderer` starts: it renders templates until its input ends, within limits.

    request   {"source", "say", "cpu_s", "memory_bytes", "n_characters"}
    reply     {"text"}, {"variables"}, {}, {"error"} or {"is_full"}

Each is one line of JSON. `say` is null to compile alone, "variables", or {"messages", "values",
"now"} to render. A first line tells what the system limits here.
"""

import json
import signal
import sys
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2

from localspec.dialogue.jinja import Compiled

try:
    import resource
except ImportError:  # a system without such limits: `renderer` watches the memory
    resource = None

N_COMPILED = 4
"""Templates that stay compiled."""
TRIAL_BYTES = 32_000_000

compiled = lru_cache(N_COMPILED)(Compiled)


def serve() -> None:
    """Answer requests."""
    base_bytes = _mapped_bytes()
    has_limit = _holds_memory_limit(base_bytes)
    has_clock = hasattr(signal, "setitimer")
    _write({"has_limit": has_limit, "has_clock": has_clock, "start_s": time.process_time()})
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if has_limit:
            _limit_memory(base_bytes + request["memory_bytes"])
        _limit_time(request["cpu_s"])
        reply = _reply(request)
        _limit_time(0.0)
        if has_limit:
            _limit_memory(None)
        _write(reply)


def _write(reply: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(reply).encode() + b"\n")
    sys.stdout.buffer.flush()


def _reply(request: dict[str, Any]) -> dict[str, Any]:
    try:
        return _said(**request)
    except MemoryError:
        return {"is_full": True}
    except Exception as error:  # noqa: BLE001 - a template can raise anything
        line = f", line {error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else ""
        text = error.message if isinstance(error, jinja2.TemplateError) else str(error)
        return {"error": (text or type(error).__name__) + line}


def _said(*, source: str, say: Any, n_characters: int, **limits: float) -> dict[str, Any]:
    template = compiled(source)
    if say is None:
        return {}
    if say == "variables":
        return {"variables": template.variables}
    text = template.render(say["messages"], say["values"], say["now"])
    if len(text) > n_characters:
        return {"error": f"it writes more than {n_characters:,} characters"}
    return {"text": text}


def _limit_time(seconds: float) -> None:
    """After so much processor time the system ends this process; 0: no limit."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _limit_memory(n_bytes: int | None) -> None:
    """Limit the address space; None: as the system has it."""
    if resource:
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        lowest = hard if n_bytes is None else n_bytes
        is_open = hard in (resource.RLIM_INFINITY, max(hard, lowest))
        resource.setrlimit(resource.RLIMIT_AS, (lowest if is_open else hard, hard))


def _holds_memory_limit(base_bytes: int) -> bool:
    """Whether this system enforces the limit, by trying: macOS has it and does not."""
    if resource is None:
        return False
    try:
        _limit_memory(base_bytes + TRIAL_BYTES)
        bytearray(2 * TRIAL_BYTES)  # zeros that nobody touches take no memory
    except MemoryError:
        return True
    except (OSError, ValueError):
        pass
    return False


def _mapped_bytes() -> int:
    """Address space in use, libraries included; a guess where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return 100_000_000
    return pages * resource.getpagesize() if resource else 0
