"""How one loaded model is asked: prompts by what a user and a conversation tell the template."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from localspec.dialogue.prompts import Prompts
from localspec.dialogue.tail import Tail
from localspec.dialogue.template import ChatTemplate, Message
from localspec.dialogue.thinking import think_variables
from localspec.dialogue.tools import TOOLS, knows_tools
from localspec.engine.vocabulary import ModelVocabulary
from localspec.errors import UserError
from localspec.fields import Think
from localspec.notify import Notify
from localspec.session.chat_template import ChosenTemplate

OWN_NAMES = ("messages", "bos_token", "eos_token", "add_generation_prompt")
"""What every template is given, which nobody else may set."""
MOST_KEPT = 64
"""Values of templates that are kept at a time: strangers may choose them."""
_SAMPLE = [Message(role="user", content="a")]


@dataclass(frozen=True, slots=True)
class TemplateValues:
    """What the template is told beside the messages.

    `args` are variables by name, and go before those of `think`. `now`: what it takes for today.
    """

    think: Think | None = None
    args: Mapping[str, Any] = field(default_factory=dict[str, Any])
    now: datetime | None = None

    @property
    def key(self) -> str:
        """Equal for equal values."""
        return json.dumps([self.think, self.args, str(self.now)], sort_keys=True, default=str)


class Prompting:
    """Prompts for one model; `notify` hears once what a choice means for its template."""

    def __init__(self, chosen: ChosenTemplate, vocabulary: ModelVocabulary, notify: Notify) -> None:
        self._chosen = chosen
        self._vocabulary = vocabulary
        self._notify = notify
        self._made: dict[str, Prompts] = {}
        self._said: set[str] = set()

    def prompts(self, values: TemplateValues = TemplateValues()) -> Prompts:
        """Messages to prompts. ModelError where the template is broken."""
        found = self._made.get(values.key)
        if found is None:
            if len(self._made) >= MOST_KEPT:
                self._made.clear()
            self._say(self._chosen.note)
            template, vocabulary = self._template(values), self._vocabulary
            told = values.args.get(TOOLS, ())
            is_text = template is not None and not knows_tools(template)
            found = self._made[values.key] = Prompts(
                template, vocabulary, vocabulary.bos_text, told if is_text else (), tells=is_text
            )
        return found

    @property
    def tails(self) -> list[Tail]:
        """How the prompts end that were made so far, in each way to ask."""
        return [prompts.tail for prompts in self._made.values()]

    def _template(self, values: TemplateValues) -> ChatTemplate | None:
        plain = self._compiled({}, values.now)
        if plain is None:
            if values.think or values.args:
                self._say("there is no chat template: --think and --template-arg do nothing")
            return None
        variables = {**self._thinking(values, plain), **values.args}
        self._check(values.args, plain)
        return self._compiled(variables, values.now) if variables else plain

    def _compiled(self, variables: Mapping[str, Any], now: datetime | None) -> ChatTemplate | None:
        vocabulary = self._vocabulary
        return self._chosen.compiled(vocabulary.bos_text, vocabulary.eos_text, variables, now)

    def _thinking(self, values: TemplateValues, plain: ChatTemplate) -> Mapping[str, Any]:
        if values.think is None:
            return {}

        def render(variables: Mapping[str, Any]) -> object:
            template = self._compiled({**variables, **values.args}, values.now)
            return template and template.render(_SAMPLE)

        found = think_variables(values.think, plain.source, plain.variables, render)
        self._say(found.note)
        return found.values

    def _check(self, args: Mapping[str, Any], plain: ChatTemplate) -> None:
        for name in args:
            if name in OWN_NAMES:
                sentence = f"{name!r} is none for --template-arg or chat_template_kwargs"
                raise UserError(f"{sentence}: localspec itself gives the template that")
            if name not in plain.variables and name != TOOLS:
                self._say(f"the chat template asks for no {name!r}: --template-arg does nothing")

    def _say(self, note: str | None) -> None:
        if note and note not in self._said:
            self._said.add(note)
            self._notify(note)
