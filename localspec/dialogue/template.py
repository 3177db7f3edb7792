"""Messages to a prompt.

A chat template comes out of a model file, so it is untrusted code and runs in jinja2's sandbox. It
finds the conventions that Hugging Face's templates assume (trimmed blocks, loop controls,
`raise_exception`, `strftime_now`).
"""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, NotRequired, TypedDict

import jinja2
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from localspec.errors import ModelError

_MAX = 1_000_000_000
_RENDER_ERRORS = (
    jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError,
    TypeError, ValueError,
)  # fmt: skip


class Message(TypedDict):
    """One turn of a conversation; `thought` is an assistant's reasoning, apart from `content`."""

    role: Literal["system", "user", "assistant"]
    content: str
    thought: NotRequired[str]


class _Sandbox(ImmutableSandboxedEnvironment):
    """jinja2's sandbox, in which an operator cannot fill the memory either."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        is_format = operator == "%" and isinstance(left, str)
        if operator == "**" or is_format or (operator == "*" and _size(left) * _size(right) > _MAX):
            raise SecurityError(f"{operator} is not allowed on these")
        return super().call_binop(context, operator, left, right)


def _size(value: Any) -> float:
    return abs(value) if isinstance(value, int | float) else len(value)


class ChatTemplate:
    """A model's Jinja chat template, compiled once. ModelError where the source is not one."""

    def __init__(self, source: str, bos: str = "", eos: str = "") -> None:
        sandbox = _Sandbox(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        sandbox.filters["tojson"] = _to_json
        functions: dict[str, Any] = sandbox.globals
        functions.update(raise_exception=_raise, strftime_now=_now)
        self.source = source
        self._bos, self._eos = bos, eos
        try:
            self._template = sandbox.from_string(source)
        except jinja2.TemplateError as error:
            raise _template_error(error) from error

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt that asks for the assistant's next turn.

        A template that knows no system role gets the system text ahead of the first user message.
        """
        try:
            return self._render(messages)
        except ModelError:
            merged = _without_system(messages)
            if merged is None:
                raise
            return self._render(merged)

    def _render(self, messages: Sequence[Message]) -> str:
        try:
            return self._template.render(
                messages=messages,
                bos_token=self._bos,
                eos_token=self._eos,
                add_generation_prompt=True,
                tools=None,
            )
        except _RENDER_ERRORS as error:
            raise _template_error(error) from error


def _without_system(messages: Sequence[Message]) -> list[Message] | None:
    if len(messages) < 2 or messages[0]["role"] != "system" or messages[1]["role"] != "user":
        return None
    content = f"{messages[0]['content']}\n\n{messages[1]['content']}"
    return [Message(role="user", content=content), *messages[2:]]


def _template_error(error: Exception) -> ModelError:
    return ModelError(f"the model's chat template failed ({error}): use --raw to do without it")


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _now(layout: str) -> str:
    return datetime.now().astimezone().strftime(layout)


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)
