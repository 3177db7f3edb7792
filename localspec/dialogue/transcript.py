"""A conversation to token ids, so that each prompt begins with the tokens of the last one.

To tokenize the rendered text anew would often give other ids than the model emitted ("ab" as one
token where it said "a", "b"), and the cache would be useless from there on. So the ids of answers
are kept, and only what a template adds around them is tokenized. The prompt of turn k is that of
turn k - 1, the ids of its answer, and the rest of the rendered text. A template may trim an answer.
Where it rewrites more (it may drop earlier reasoning), what it changed is tokenized anew. A prompt
depends on the conversation alone: a session that goes on tomorrow gets the same one.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from localspec.dialogue.markup import Markup, Opening
from localspec.dialogue.parser import AnswerParser
from localspec.dialogue.prompts import Prompts, without_empty_answers
from localspec.dialogue.template import Message


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said: `text` with its tool calls, and the `thought` before it.

    `tokens` are all emitted ids, with those of the thought and of marks, of the tokenizer with the
    digest `tokenizer`; none where the answer is not that of whole tokens.
    """

    text: str
    thought: str = field(default="", kw_only=True)
    tokens: tuple[int, ...] = ()
    tokenizer: str | None = None
    finish_reason: str = "stop"
    figures: dict[str, Any] = field(default_factory=dict[str, Any], compare=False)


@dataclass(frozen=True, slots=True)
class Turn:
    """A message and its answer; None: not answered yet."""

    question: str
    answer: Answer | None = None


def messages(system: str | None, turns: Iterable[Turn]) -> list[Message]:
    """The conversation as a chat template takes it: half a thought is no answer."""
    said = [Message(role="system", content=system)] if system else []
    for turn in turns:
        said.append(Message(role="user", content=turn.question))
        if turn.answer is not None:
            said.append(message_of(turn.answer))
    return without_empty_answers(said)


def message_of(answer: Answer) -> Message:
    """An answer as a message, its thought apart."""
    message = Message(role="assistant", content=answer.text)
    if answer.thought:
        message["thought"] = answer.thought
    return message


@dataclass(frozen=True, slots=True)
class _Written:
    """Rendered text and its tokens."""

    text: str = ""
    tokens: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Step:
    """One turn: the prompt that asks for its answer, and the ways a template may go on from it."""

    turn: Turn
    prompt: _Written
    continuations: tuple[_Written, ...]


class Transcript:
    """Prompts for one model. `tokenizer` is a digest; ids of another tokenizer are not reused."""

    def __init__(self, prompts: Prompts, tokenizer: str | None, markup: Markup) -> None:
        self._prompts = prompts
        self._markup = markup
        self._vocabulary = prompts.vocabulary
        self.tokenizer = tokenizer
        self._system: str | None = None
        self._steps: list[_Step] = []

    def prompt(self, system: str | None, turns: Sequence[Turn]) -> list[int]:
        """Ids that ask for an answer to the last turn. ModelError where the template fails."""
        return list(self._step(system, turns).prompt.tokens)

    def opening(self, system: str | None, turns: Sequence[Turn]) -> Opening:
        """Where the answer begins: the template may have opened a section."""
        return self._markup.opening(self._step(system, turns).prompt.text)

    def _step(self, system: str | None, turns: Sequence[Turn]) -> _Step:
        if system != self._system:
            self._system, self._steps = system, []
        n_known = next(
            (i for i, step in enumerate(self._steps) if i >= len(turns) or step.turn != turns[i]),
            len(self._steps),
        )
        del self._steps[n_known:]
        for i in range(n_known, len(turns)):
            self._steps.append(self._next(system, turns[: i + 1]))
        return self._steps[-1]

    def _next(self, system: str | None, turns: Sequence[Turn]) -> _Step:
        *before, turn = turns
        text = self._prompts.text(messages(system, [*before, Turn(turn.question)]))
        known = self._steps[-1].continuations if self._steps else ()
        prompt = next((self._extend(start, text) for start in known if _begins(text, start)), None)
        prompt = prompt or _Written(text, tuple(self._prompts.tokens(text)))
        return _Step(turn, prompt, self._continuations(prompt, turn.answer))

    def _continuations(self, prompt: _Written, answer: Answer | None) -> tuple[_Written, ...]:
        if answer is None or not answer.text:
            return (prompt,)
        written: dict[str, tuple[int, ...]] = {}
        for said, ids in self._spellings(answer):
            for text in (said, said.rstrip(), said.strip()):
                written.setdefault(prompt.text + text, prompt.tokens + ids)
        return (*(_Written(text, ids) for text, ids in written.items()), prompt)

    def _spellings(self, answer: Answer) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The answer as it was emitted, and as a template writes it that drops the thought."""
        if answer.tokens and answer.tokenizer == self.tokenizer:
            yield self._spelled(answer.tokens), answer.tokens
        yield answer.text, tuple(self._vocabulary.tokenize(answer.text, add_special=False))

    def _spelled(self, tokens: Sequence[int]) -> str:
        """The text of tokens, with the names of marks."""
        parser = AnswerParser(self._markup.unsplit(), self._vocabulary)
        for token in tokens:
            parser.push(token)
        parser.finish()
        return parser.raw

    def _extend(self, start: _Written, text: str) -> _Written:
        rest = text[len(start.text) :]
        return _Written(text, (*start.tokens, *self._vocabulary.tokenize(rest, add_special=False)))


def _begins(text: str, start: _Written) -> bool:
    return bool(start.text) and text.startswith(start.text)
