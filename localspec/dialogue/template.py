"""A chat template: messages to the prompt that asks for the assistant's next turn.

`renderer` runs it with a budget, `forms` finds out how it wants its messages.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any

from localspec.dialogue.forms import Message
from localspec.dialogue.renderer import RENDERER, RenderError
from localspec.errors import ModelError, UserError
from localspec.gguf.cursor import shown

__all__ = ["ChatTemplate", "Message", "TemplateError"]

MOST_SHOWN = 200
MOST_CHARACTERS = 1_000_000
"""Of a source; published ones have up to 30,000."""


class TemplateError(ModelError):
    """A chat template that cannot be used: broken, refusing, endless or deaf.

    `advice` is what `generate` and `chat` can do; another door gives its own.
    """

    def __init__(self, reason: str, advice: str = "--template chatml replaces it") -> None:
        super().__init__(f"the chat template failed ({reason}): {advice}")
        self.reason = reason


class ChatTemplate:
    """A Jinja chat template, compiled once a process.

    Raises TemplateError where the source is not one, UserError for variables that are not JSON.

    `variables`: further names for the template, as `enable_thinking`. `now`: what it takes for
    today, so that a conversation has one date; None: the date of each rendering.
    """

    def __init__(
        self,
        source: str,
        bos: str = "",
        eos: str = "",
        variables: Mapping[str, Any] | None = None,
        now: datetime | None = None,
    ) -> None:
        self.source = source
        self._values = {**(variables or {}), "bos_token": bos, "eos_token": eos}
        self._now = now and now.isoformat()
        try:
            json.dumps(self._values)
        except (TypeError, ValueError, RecursionError) as error:
            raise UserError(f"a template's variables are what JSON can have: {error}") from error
        _compile(source)

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> str:
        """The prompt. TemplateError where the template fails or spends its budget.

        Nothing is lost: what the template ignores as a system message goes to the head of the first
        question; it gets content as parts where it ignores text. Empty answers that it refuses are
        left out. An answer's `thought` has the names that the source knows, or is left out.
        """
        values = {**self._values, "add_generation_prompt": add_generation_prompt}
        say = {"messages": list(messages), "values": values, "now": self._now}
        return _answer(self.source, say)["text"]

    @cached_property
    def variables(self) -> frozenset[str]:
        """Names that the source asks for, beside those that every template is given."""
        return frozenset(_answer(self.source, "variables")["variables"])


@lru_cache(8)
def _compile(source: str) -> None:
    if len(source) > MOST_CHARACTERS:
        raise TemplateError(f"it has {len(source):,} characters, and {MOST_CHARACTERS:,} at most")
    _answer(source, None)


def _answer(source: str, say: Any) -> dict[str, Any]:
    try:
        return RENDERER.answer(source, say)
    except RenderError as error:
        raise TemplateError(shown(str(error), MOST_SHOWN)[1:-1]) from error
