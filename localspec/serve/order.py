"""From a request's body to the replies that it asks for: validation, template, tokens.

None of it needs the engine's thread: vocabulary and template are only read.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from localspec.decode.generation import Generation
from localspec.dialogue.answer_parser import AnswerParser
from localspec.dialogue.borders import Rendered
from localspec.dialogue.markup import PLAIN, UNOPENED
from localspec.dialogue.prompts import Prompts
from localspec.dialogue.template import TemplateError
from localspec.engine.vocabulary import Vocabulary, spelled
from localspec.serve.messages import Submit, Wishes
from localspec.serve.problem import TOO_LONG, BadRequestError, Problem, refused
from localspec.serve.request_body import (
    CHAT,
    COMPLETION,
    INFILL,
    NATIVE,
    checked,
    flag,
    number_of_choices,
    options_of,
    variables_of,
    wants_usage,
    wishes_of,
    with_defaults,
)
from localspec.serve.texts import Texts, continues, messages_of
from localspec.session.reply_options import ReplyOptions
from localspec.session.session import Session

MOST_PROMPTS = 64


@dataclass(frozen=True, slots=True)
class OneAnswer:
    """One reply that is asked for; `echo` is what it says first."""

    generation: Generation
    parser: AnswerParser
    n_stable: int
    options: ReplyOptions
    echo: str = ""

    def submit(self, id_: int, wait_s: float | None, wishes: Wishes) -> Submit:
        """The message that asks for it."""
        return Submit(id_, self.generation, self.parser, self.n_stable, wait_s, wishes)


@dataclass(frozen=True, slots=True)
class Order:
    """Everything that one request asks of a session; `given` are its fields as they came."""

    session: Session
    given: Mapping[str, Any]
    choices: Sequence[OneAnswer]
    n_prompt: int
    is_stream: bool = False
    wants_usage: bool = False
    has_tools: bool = False
    wishes: Wishes = field(default_factory=Wishes)


@dataclass(frozen=True, slots=True)
class AskedReply:
    """A conversation as a template renders it."""

    prompts: Prompts
    prompt: Rendered
    options: ReplyOptions
    has_tools: bool


@dataclass(slots=True)
class Orders:
    """Makes orders for a loaded session; safe from several threads.

    `verify`: how sampled drafts are accepted where the request does not matter. `defaults`: fields
    by name for requests that leave them out, as `check_defaults` passes them.
    """

    session: Session
    verify: Literal["auto", "match", "rejection"] = "auto"
    defaults: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def chat(self, body: Any, came: Mapping[str, Any] | None = None) -> Order:
        """Of /v1/chat/completions. BadRequestError for what cannot be answered.

        `came`: the body of another protocol that this one was made from.
        """
        given = self.given(body, CHAT)
        asked, session = self.asked(given), self.session
        ids, options = self.chat_ids(asked), asked.options
        markup = session.markup_for(options)
        opening = markup.opening(asked.prompt.clean)
        options = session.constrained(options, opening, asked.prompts)
        choices = [
            self._choice(ids, each, session.parser(each, markup, opening))
            for each in _seeded(options, number_of_choices(given))
        ]
        order = self._order(given, choices, has_tools=asked.has_tools)
        return order if came is None else replace(order, given=came)

    def asked(self, given: Mapping[str, Any]) -> AskedReply:
        """The conversation in a body, rendered. BadRequestError where the template refuses it."""
        session = self.session
        said = messages_of(given.get("messages"))
        options, variables = options_of(given, self.verify), variables_of(given)
        options = session.effective(replace(options, template_args=variables))
        try:
            prompts = session.prompts_for(options)
            goes_on = continues(given, said)
            rendered = prompts.continued(said) if goes_on else prompts.rendered(said)
            return AskedReply(prompts, rendered, options, options.tools is not None)
        except TemplateError as error:
            raise _refusing(error) from error

    def chat_ids(self, asked: AskedReply) -> list[int]:
        """The tokens of a conversation."""
        try:
            return asked.prompts.ids(asked.prompt)
        except TemplateError as error:
            raise _refusing(error) from error

    def completion(self, body: Any, known: frozenset[str] = COMPLETION) -> Order:
        """Of /v1/completions. BadRequestError for what cannot be answered."""
        given = self.given(body, known)
        return self._raw(given, Texts(self.session).prompts(given))

    def native(self, body: Any) -> Order:
        """Of llama.cpp's /completion."""
        return self.completion(body, NATIVE)

    def infill(self, body: Any) -> Order:
        """Of llama.cpp's /infill."""
        given = self.given(body, INFILL)
        return self._raw(given, [Texts(self.session).infill(given)])

    @property
    def usual(self) -> ReplyOptions:
        """How a reply is made where a request says nothing."""
        given = self.given({}, CHAT)
        return self.session.effective(options_of(given, self.verify))

    def given(self, body: Any, known: frozenset[str] = CHAT) -> dict[str, Any]:
        """The fields of a body, with the server's own values where they are not given."""
        return with_defaults(checked(body, known), self.defaults, known)

    def _raw(self, given: Mapping[str, Any], prompts: Sequence[list[int]]) -> Order:
        session, n = self.session, number_of_choices(given)
        if len(prompts) * n > MOST_PROMPTS:
            raise refused(f"{len(prompts) * n} replies are more than {MOST_PROMPTS}", "prompt")
        options = session.effective(options_of(given, self.verify))
        choices: list[OneAnswer] = []
        for ids in prompts:
            echo = text_of(ids, session.target.vocabulary) if flag(given, "echo") else ""
            choices += [
                replace(self._choice(ids, each, session.parser(each, PLAIN, UNOPENED)), echo=echo)
                for each in _seeded(options, n)
            ]
        return self._order(given, choices)

    def _choice(self, ids: list[int], options: ReplyOptions, parser: AnswerParser) -> OneAnswer:
        n_ctx = self.session.n_ctx
        if len(ids) >= n_ctx:
            raise BadRequestError(
                Problem(
                    400,
                    f"the prompt of {len(ids):,} tokens exceeds the available context size"
                    f" ({n_ctx:,} tokens, with the reply): shorten it, or start the server with a"
                    " larger --ctx",
                    code=TOO_LONG,
                    more=(("n_prompt_tokens", len(ids)), ("n_ctx", n_ctx)),
                )
            )
        generation = self.session.generations.of(ids, options)
        return OneAnswer(generation, parser, self.session.n_repeated(ids), options)

    def _order(
        self, given: Mapping[str, Any], choices: list[OneAnswer], *, has_tools: bool = False
    ) -> Order:
        n_prompt = sum(
            choice.generation.n_prompt for choice in choices[:: number_of_choices(given)]
        )
        is_stream, is_told = flag(given, "stream"), wants_usage(given)
        wishes = wishes_of(given)
        return Order(self.session, given, choices, n_prompt, is_stream, is_told, has_tools, wishes)


def text_of(ids: Iterable[int], vocabulary: Vocabulary) -> str:
    """What tokens say, control tokens by their names."""
    return b"".join(spelled(vocabulary, i) for i in ids).decode(errors="replace")


def _refusing(error: TemplateError) -> BadRequestError:
    return refused(f"the chat template refuses these messages ({error.reason})", "messages")


def _seeded(options: ReplyOptions, n: int) -> list[ReplyOptions]:
    """The same options with a seed for each choice, the first with its own."""
    sampling = options.sampling
    return [replace(options, sampling=replace(sampling, seed=sampling.seed + i)) for i in range(n)]
