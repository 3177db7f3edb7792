"""From a request's body to the replies that it asks for: validation, template, tokens.

None of it needs the engine's thread: vocabulary and template are only read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from localspec.decode.generation import Generation
from localspec.dialogue.markup import PLAIN, UNOPENED
from localspec.dialogue.parser import AnswerParser
from localspec.dialogue.template import TemplateError
from localspec.serve.asked import (
    CHAT,
    COMPLETION,
    checked,
    flag,
    number_of_choices,
    options_of,
    variables_of,
    wants_usage,
)
from localspec.serve.messages import Submit
from localspec.serve.problem import BadRequestError, Problem, refused
from localspec.serve.turns import check_ids, messages_of, prompts_of, tools_of
from localspec.session.config import ReplyOptions
from localspec.session.session import Session

MOST_PROMPTS = 64


@dataclass(frozen=True, slots=True)
class OneAnswer:
    """One reply that is asked for."""

    generation: Generation
    parser: AnswerParser
    n_stable: int

    def submit(self, id_: int, wait_s: float | None) -> Submit:
        """The message that asks for it."""
        return Submit(id_, self.generation, self.parser, self.n_stable, wait_s)


@dataclass(frozen=True, slots=True)
class Order:
    """Everything that one request asks for."""

    choices: Sequence[OneAnswer]
    n_prompt: int
    is_stream: bool = False
    wants_usage: bool = False
    has_tools: bool = False


@dataclass(slots=True)
class Orders:
    """Makes orders for a loaded session; safe from several threads.

    `verify`: how sampled drafts are accepted where the request does not matter.
    """

    session: Session
    verify: Literal["auto", "match", "rejection"] = "auto"

    def chat(self, body: Any) -> Order:
        """Of /v1/chat/completions. BadRequestError for what cannot be answered."""
        given, session = checked(body, CHAT), self.session
        said = messages_of(given.get("messages"))
        template = session.prompts.template
        tools = tools_of(given, template.source if template else None)
        options, variables = options_of(given, self.verify), variables_of(given)
        if tools:
            variables = {**variables, "tools": tools}
        options = session.effective(replace(options, template_args=variables))
        try:
            prompts = session.prompts_for(options)
            prompt = prompts.rendered(said)
            ids = prompts.ids(prompt)
        except TemplateError as error:
            sentence = f"the chat template refuses these messages ({error.reason})"
            raise refused(sentence, "messages") from error
        opening = session.markup.opening(prompt.clean)
        session.check_grammar(options, opening)
        n = number_of_choices(given)
        choices = [
            self._choice(ids, each, session.parser(each, session.markup, opening))
            for each in _seeded(options, n)
        ]
        return self._order(given, choices, has_tools=bool(tools))

    def completion(self, body: Any) -> Order:
        """Of /v1/completions. BadRequestError for what cannot be answered."""
        given, session = checked(body, COMPLETION), self.session
        prompts = prompts_of(given.get("prompt"))
        n = number_of_choices(given)
        if len(prompts) * n > MOST_PROMPTS:
            raise refused(f"{len(prompts) * n} replies are more than {MOST_PROMPTS}", "prompt")
        options = session.effective(options_of(given, self.verify))
        choices: list[OneAnswer] = []
        for prompt in prompts:
            ids = session.raw_prompt(prompt) if isinstance(prompt, str) else prompt
            check_ids(ids, session.target.vocabulary.n_tokens)
            choices += [
                self._choice(ids, each, session.parser(each, PLAIN, UNOPENED))
                for each in _seeded(options, n)
            ]
        return self._order(given, choices)

    def _choice(self, ids: list[int], options: ReplyOptions, parser: AnswerParser) -> OneAnswer:
        n_ctx = self.session.n_ctx
        if len(ids) >= n_ctx:
            raise BadRequestError(
                Problem(
                    400,
                    f"the prompt has {len(ids):,} tokens and the context holds {n_ctx:,}, with the"
                    " reply: shorten it, or start the server with a larger --ctx",
                    code="context_length_exceeded",
                    more=(("n_prompt_tokens", len(ids)), ("n_ctx", n_ctx)),
                )
            )
        generation = self.session.generation(ids, options)
        return OneAnswer(generation, parser, self.session.n_repeated(ids))

    def _order(
        self,
        given: Mapping[str, Any],
        choices: list[OneAnswer],
        *,
        has_tools: bool = False,
    ) -> Order:
        n = number_of_choices(given)
        n_prompt = sum(choice.generation.n_prompt for choice in choices[::n])
        return Order(choices, n_prompt, flag(given, "stream"), wants_usage(given), has_tools)


def _seeded(options: ReplyOptions, n: int) -> list[ReplyOptions]:
    """The same options with a seed for each choice, the first with its own."""
    sampling = options.sampling
    return [replace(options, sampling=replace(sampling, seed=sampling.seed + i)) for i in range(n)]
