"""Chat templates as Hugging Face's library renders them.

The conventions (trimmed blocks, loop controls, `generation`, `tojson`, `raise_exception`,
`strftime_now`) are those of transformers' utils/chat_template_utils.py. A template is code out of a
downloaded file: the sandbox keeps it from objects, and `worker`, which this runs in, from all time
and memory.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
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
