"""What a user asks to a prompt's tokens: the one way from messages to ids, for one model."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

from localspec.dialogue.borders import Borders, Rendered
from localspec.dialogue.specials import Specials
from localspec.dialogue.tail import Tail, tail_of
from localspec.dialogue.template import ChatTemplate, Message
from localspec.dialogue.tools import with_tools
from localspec.engine.vocabulary import Vocabulary
from localspec.errors import UserError

PARAGRAPH = "\n\n"
"""Behind each message to a base model."""


@dataclass(frozen=True)
class Prompts:
    """Messages to a prompt, for one model. `generate`, `chat`, `bench` and programs use the same.

    `template` None: a base model, whose messages are paragraphs, each ended by an empty line.
    Control tokens are the template's own: a message that spells one says its letters.
    """

    template: ChatTemplate | None
    vocabulary: Vocabulary
    bos: str = ""
    told: Sequence[Mapping[str, Any]] = ()
    """Tools of which the messages tell, because the template does not."""
    tells: bool = False
    """Whether it knows neither tools nor calls: all of them are text."""

    def of(self, messages: Sequence[Message]) -> list[int]:
        """Ids that ask for the assistant's next turn. ModelError where the template fails."""
        return self.ids(self.rendered(messages))

    def rendered(self, messages: Sequence[Message]) -> Rendered:
        """The prompt that asks for the assistant's next turn. ModelError or UserError."""
        borders, marked = self._marked(messages)
        return Rendered(self._text(marked), borders, marked)

    def continued(self, messages: Sequence[Message]) -> Rendered:
        """The prompt that ends with the last message, which is the answer's beginning. ModelError
        or UserError."""
        borders, marked = self._marked(messages)
        if self.template is None:
            text = "".join(message["content"] + PARAGRAPH for message in marked)
            return Rendered(text.removesuffix(PARAGRAPH), borders, marked)
        whole = Rendered(self.template.render(marked, add_generation_prompt=False), borders, marked)
        span = whole.span(len(marked) - 1)
        if span is None:  # the template changes it
            asking = self._text(marked[:-1])
            return Rendered(asking + marked[-1]["content"], borders, marked)
        content = marked[-1]["content"]
        behind = content[len(content.rstrip()) :]
        return Rendered(whole.text[: span[1]] + behind, borders, marked)

    def _marked(self, messages: Sequence[Message]) -> tuple[Borders, list[Message]]:
        messages = with_tools(messages, self.told) if self.tells else messages
        borders = Borders.beside(messages)
        marked = [borders.marked(each, i, self.specials) for i, each in enumerate(messages)]
        return borders, marked

    def ids(self, prompt: Rendered) -> list[int]:
        """Ids of a whole prompt."""
        return self.stretch(prompt, 0, len(prompt.text))

    def stretch(self, prompt: Rendered, start: int, end: int) -> list[int]:
        """Ids of a part of it, before which other tokens are known, if anything.

        A template writes BOS itself where its model wants it; a second one would confuse the model.
        """
        text = prompt.without_borders(prompt.text[start:end])
        has_bos = self.template is not None and bool(self.bos) and text.startswith(self.bos)
        add_special = start == 0 and not has_bos
        mark = prompt.borders.mark
        return self.specials.ids(text, mark, add_special=add_special, goes_on=start > 0)

    @cached_property
    def tail(self) -> Tail:
        """What ends a prompt and is not repeated by the conversation's next one."""
        return tail_of(self.of)

    @cached_property
    def specials(self) -> Specials:
        """What the model's control tokens are."""
        return Specials(self.vocabulary, self.template.source if self.template else "")

    def _text(self, messages: Sequence[Message]) -> str:
        if self.template is None:
            return "".join(message["content"] + PARAGRAPH for message in messages)
        return self.template.render(messages)


def checked_text(text: Any) -> str:
    """A text with something in it. UserError for anything else."""
    if not isinstance(text, str):
        raise UserError(f"{text!r} is no text: give a str")
    if not text.strip():
        raise UserError("the prompt is empty: give some text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"the prompt cannot be written in UTF-8: {error}") from error
    return text


def messages_of(asked: Any) -> list[Message]:
    """Messages from a text, or from messages with `role` and `content`. UserError for others."""
    if isinstance(asked, str):
        return [Message(role="user", content=checked_text(asked))]
    if not isinstance(asked, Sequence) or not asked:
        raise UserError(f"{asked!r} is nothing to answer: give a text or a list of messages")
    said = [_checked(message) for message in asked]
    if any(message.get("tool_calls") for message in said):
        return said
    return without_empty_answers(said)


_ROLES = (*get_args(Message.__annotations__["role"]), "tool")


def _checked(message: Any) -> Any:
    """The message, with the calls in it as templates take them."""
    if not isinstance(message, Mapping) or message.get("role") not in _ROLES:
        names = ", ".join(_ROLES)
        raise UserError(f"{message!r} is no message: it has a `role` ({names}) and `content`")
    if message["role"] in ("system", "user") or message.get("content"):
        checked_text(message.get("content"))
    if not isinstance(message.get("thought", ""), str):
        raise UserError(f"the thought {message['thought']!r} is no text: give a str")
    made: dict[str, Any] = {**message, "content": message.get("content") or ""}
    if not (calls := made.pop("tool_calls", None)):
        return made
    try:
        return made | {"tool_calls": [made_call(call) for call in calls]}
    except (TypeError, ValueError) as error:
        raise UserError(f"{message!r} has {error}") from error


def made_call(call: Any) -> dict[str, Any]:
    """A call that was made, with its arguments as an object: templates write them themselves.

    ValueError says what it has in place of them.
    """
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise ValueError("a call without a function's name")
    arguments = function.get("arguments", "{}")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError as error:
            raise ValueError(f"arguments that are no JSON: {error}") from error
    named = {"name": function["name"], "arguments": arguments}
    return {"id": call.get("id", ""), "type": "function", "function": named}


def without_empty_answers(said: Sequence[Message]) -> list[Message]:
    """The same where each answer says something, as templates want it.

    A question that got an empty answer, or a thought alone, goes with the next one: roles still
    take turns.
    """
    kept: list[Message] = []
    is_open = False
    for message in said:
        if message["role"] == "assistant" and not (message.get("content") or "").strip():
            is_open = True
            continue
        if is_open and kept and kept[-1]["role"] == message["role"] == "user":
            content = f"{kept[-1]['content']}\n\n{message['content']}"
            kept[-1] = Message(role="user", content=content)
        else:
            kept.append(message)
        is_open = False
    return kept
