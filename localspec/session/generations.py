"""How one loaded model is asked: prompts by what a user and a conversation tell the template, and
options of a reply to a generation that has not begun.

`constrained` says what a reply keeps, given where its answer begins: behind a thought or the header
of a message. A grammar speaks of the answer. Where the prompt has opened a thought, it counts from
the end of that; in models that answer in channels, from the header of the final one. Until then all
is free but an end. A call that must be made is a grammar of its own, in the frame of the template.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from localspec.decode.generation import Generation, Limits
from localspec.decode.logprobs import Likelihoods
from localspec.dialogue.call_grammar import CallGrammar, Function, frame_of
from localspec.dialogue.markup import UNOPENED, Markup, Opening
from localspec.dialogue.prompts import Prompts
from localspec.dialogue.tail import Tail
from localspec.dialogue.template import ChatTemplate, Message
from localspec.dialogue.thinking import think_variables
from localspec.dialogue.tools import TOOLS, knows_tools
from localspec.engine.constraint import Constraint, Grammar, GrammarTokenizer
from localspec.engine.vocabulary import ModelVocabulary, Vocabulary
from localspec.errors import UserError
from localspec.fields import Think
from localspec.notify import Notify
from localspec.sampling_fields import Sampling
from localspec.session.chat_template import ChosenTemplate
from localspec.session.reply_options import ReplyOptions, with_biases

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


def constrained(
    options: ReplyOptions,
    opening: Opening,
    prompts: Prompts,
    markup: Markup,
    vocabulary: Vocabulary,
) -> ReplyOptions:
    """The options with what the answer keeps. UserError where that cannot be enforced."""
    tools = options.tools
    if tools is None or not tools.forced:
        grammar = options.grammar
        after = _answer_begins(opening, markup)
        return replace(options, grammar=grammar and replace(grammar, after=after))
    if options.grammar is not None:
        raise UserError(f"tool_choice forces a call, which keeps no {options.grammar.kind}")
    frame = prompts.template and frame_of(prompts.template, markup)
    if frame is None:
        raise UserError("tool_choice cannot be enforced with this chat template: use auto")
    told = [Function.of(tool) for tool in tools.told]
    functions = [function for function in told if function.name in tools.forced]
    text = CallGrammar(frame, functions, vocabulary, tools.parallel).text
    after = _thought_ends(opening)
    return replace(options, grammar=Grammar("tools", text, after))


def check_tools(template: ChatTemplate | None) -> None:
    """UserError where there is none: a base model only continues texts."""
    if template is None:
        raise UserError("this model has no chat template and calls no tools: leave them out")


def _thought_ends(opening: Opening) -> str:
    """An expression for the end of a thought that is open; empty: none is."""
    section = opening.section
    if section is None or section.kind != "thought":
        return ""
    return "|".join(map(re.escape, section.closings))


def _answer_begins(opening: Opening, markup: Markup) -> str:
    """The same, or for the header of a message to the user."""
    if opening == UNOPENED or markup.frame is None:
        return _thought_ends(opening)
    frame, header = markup.frame, opening.header
    if frame.body in header:
        is_answer = frame.kind_of(header.partition(frame.body)[0]) == "text"
        return "" if is_answer else _final(frame.channels[0], frame.body)
    return _final("" if "final" in header else frame.channels[0], frame.body)


def _final(channel: str, body: str) -> str:
    begin = f"{re.escape(channel)}final" if channel else ""
    return rf"{begin}[^<]*(?:<\|constrain\|>\w*)?{re.escape(body)}"


class Generations:
    """Makes generations for a vocabulary and a context of `n_ctx` tokens."""

    def __init__(self, vocabulary: Vocabulary, n_ctx: int) -> None:
        self._vocabulary = vocabulary
        self._n_ctx = n_ctx
        self._ends = vocabulary.eog

    def of(self, prompt: Sequence[int], options: ReplyOptions) -> Generation:
        """UserError for a prompt that is empty or longer than the context, and for options that
        contradict each other or do not fit the model."""
        if not prompt:
            raise UserError("the prompt is empty: give some text")
        if len(prompt) > self._n_ctx:
            raise UserError(
                f"the prompt has {len(prompt):,} tokens and the context holds {self._n_ctx:,}: "
                "use a larger --ctx"
            )
        ends = frozenset[int]() if options.ignore_eos else self._ends
        n_top = options.logprobs
        return Generation(
            prompt,
            self.sampling(options),
            Limits(self._n_ctx, options.max_tokens, ends, options.min_tokens),
            options.verify,
            options.grammar and self._constraint(options, options.grammar, len(prompt)),
            None if n_top is None else Likelihoods(n_top, options.drawn_logprobs),
        )

    def sampling(self, options: ReplyOptions) -> Sampling:
        """With what the options say of single tokens, by their ids."""
        sampling = options.sampling
        if options.logit_bias:
            sampling = with_biases(sampling, options.logit_bias, self._vocabulary)
        if options.ignore_eos:
            sampling = replace(sampling, banned=sampling.banned | self._ends)
        return sampling

    def _constraint(self, options: ReplyOptions, grammar: Grammar, n_prompt: int) -> Constraint:
        if options.ignore_eos:
            raise UserError("a grammar says where a reply ends: leave --ignore-eos out")
        if options.min_tokens:
            raise UserError("a grammar says where a reply ends: leave min_tokens out")
        return Constraint.of(grammar, self._grammar_tokenizer, n_prompt)

    @cached_property
    def _grammar_tokenizer(self) -> GrammarTokenizer:
        return GrammarTokenizer(self._vocabulary)
