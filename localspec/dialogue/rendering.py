"""The process that `renderer` starts: it renders templates until its input ends, within limits.

    request   {"source", "say", "cpu_s", "memory_bytes", "n_characters"}
    reply     {"text"}, {"variables"}, {}, {"error"} or {"is_full"}

Each is one line of JSON. `say` is null to compile alone, "variables", or {"messages", "values",
"now"} to render. A first line tells what the system limits here.

Templates are rendered as Hugging Face's library does it: the conventions (trimmed blocks, loop
controls, `generation`, `tojson`, `raise_exception`, `strftime_now`) are those of transformers'
utils/chat_template_utils.py. A template is code out of a downloaded file: the sandbox keeps it from
objects, and this process, from all time and memory.
"""

import json
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from localspec.dialogue.forms import THOUGHT_FIELDS, Form, Message, Shape, find_form, shape_of

GIVEN = {"messages", "bos_token", "eos_token", "add_generation_prompt", "tools", "strftime_now"}
"""Names that every template is given."""


N_FORMS = 1000
"""Forms that are remembered of one template."""


class GenerationTag(Extension):
    """`{% generation %}` marks what a model is trained on; in a prompt only its body counts."""

    tags = {"generation"}  # noqa: RUF012 - as jinja declares it

    def parse(self, parser: Parser) -> nodes.Node:
        """The body, in a scope of its own."""
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), True), lineno=line)


class NoTools(jinja2.Undefined):
    """`tools` where there are none: undefined, and none too, which some templates ask instead."""

    def __eq__(self, other: object) -> bool:
        return other is None or super().__eq__(other)

    __hash__ = jinja2.Undefined.__hash__


class Sandbox(ImmutableSandboxedEnvironment):
    """jinja2's sandbox, with a short way to what a template itself or a message keeps.

    Templates ask for these a million times in long conversations, and no object of Python is there.
    """

    def getattr(self, obj: Any, attribute: str) -> Any:
        """An attribute or an item."""
        if type(obj) is dict and attribute in obj and attribute not in _OF_DICTS:
            return obj[attribute]
        if type(obj) is Namespace and not attribute.startswith("_"):
            return getattr(obj, attribute, None) or super().getattr(obj, attribute)
        return super().getattr(obj, attribute)


_OF_DICTS = frozenset(dir(dict))


def _environment() -> Sandbox:
    sandbox = Sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", GenerationTag]
    )
    sandbox.filters["tojson"] = _to_json
    sandbox.tests["none"] = _is_none
    functions: dict[str, Any] = sandbox.globals
    functions["raise_exception"] = _raise
    return sandbox


def _is_none(value: Any) -> bool:
    return value is None or isinstance(value, NoTools)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        None if _is_none(value) else value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


ENVIRONMENT = _environment()


def dated(moment: datetime) -> dict[str, str]:
    """What Llama 3's templates take for today, and Firefunction's, which needs `functions`, too:
    tools are told of in the messages."""
    day = {"date_string": "%d %b %Y", "datetime": "%b %d %Y"}
    return {"functions": "", **{name: moment.strftime(form) for name, form in day.items()}}


class Compiled:
    """A template, and the forms that it takes conversations in. Raises what jinja raises."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._template = ENVIRONMENT.from_string(source)
        self._forms: dict[tuple[str, Shape], Form] = {}

    def render(self, said: Sequence[Message], values: Mapping[str, Any], now: str | None) -> str:
        """The prompt, in the plainest form of the conversation that loses nothing.

        `now`: the conversation's date in ISO 8601, today's for None; a zone is left out, as
        transformers does. LookupError where the template would leave out the question.
        """
        moment = (datetime.fromisoformat(now) if now else datetime.now()).replace(tzinfo=None)
        given = {"tools": NoTools(name="tools"), **dated(moment), **values}
        given["strftime_now"] = moment.strftime

        def rendered(messages: Sequence[dict[str, Any]]) -> str:
            return self._template.render({**given, "messages": messages})

        shape = shape_of(said)
        key = json.dumps(values, sort_keys=True), shape
        if key not in self._forms:
            if len(self._forms) >= N_FORMS:
                self._forms.clear()
            fields = self._thought_fields if any(thinks for _, _, thinks in shape) else ()
            self._forms[key] = find_form(shape, fields, rendered)
        return self._forms[key].text(said, rendered)

    @cached_property
    def variables(self) -> list[str]:
        """Names that the source asks for, beside those that every template is given."""
        tree = ENVIRONMENT.parse(self._source)
        asked = meta.find_undeclared_variables(tree) - GIVEN - ENVIRONMENT.globals.keys()
        own = {node.name for node in tree.find_all(nodes.Name) if node.ctx != "load"}
        return sorted(asked - (own - _tested(tree)))

    @cached_property
    def _thought_fields(self) -> tuple[str, ...]:
        """The fields for an assistant's thought that the source names."""
        tree = ENVIRONMENT.parse(self._source)
        named = {node.attr for node in tree.find_all(nodes.Getattr)}
        named |= {n.value for n in tree.find_all(nodes.Const) if isinstance(n.value, str)}
        return tuple(field for field in THOUGHT_FIELDS if field in named)


def _tested(tree: nodes.Template) -> set[str]:
    """Names that the source gives a value only where they have none."""
    kinds = ("defined", "undefined", "default", "d")
    tests = (n for n in tree.find_all((nodes.Test, nodes.Filter)) if n.name in kinds)
    return {test.node.name for test in tests if isinstance(test.node, nodes.Name)}


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
