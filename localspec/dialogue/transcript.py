"""A conversation to token ids, so that each prompt begins with the tokens of the last one.

To tokenize the rendered text anew would often give other ids than the model emitted ("ab" as one
token where it said "a", "b"), and the cache would be useless from there on. So the ids of answers
are kept, and only what a template adds around them is tokenized. The prompt of turn k is that of
turn k - 1, the ids of its answer, and the rest of the rendered text. A template may trim an answer.
Where it rewrites more (it may drop earlier reasoning), what it changed is tokenized anew. A prompt
depends on the conversation alone: a session that goes on tomorrow gets the same one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from localspec.dialogue.markup import opens_thought
from localspec.dialogue.prompts import Prompts
from localspec.dialogue.template import Message


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said.

    `tokens` are the emitted ids, of the tokenizer with the digest `tokenizer`; none where the text
    is not that of whole tokens.
    """

    text: str
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
    """The conversation as a chat template takes it."""
    said = [Message(role="system", content=system)] if system else []
    for turn in turns:
        said.append(Message(role="user", content=turn.question))
        if turn.answer is not None:
            said.append(Message(role="assistant", content=turn.answer.text))
    return said


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

    def __init__(self, prompts: Prompts, tokenizer: str | None) -> None:
        self._prompts = prompts
        self._vocabulary = prompts.vocabulary
        self.tokenizer = tokenizer
        self._system: str | None = None
        self._steps: list[_Step] = []

    def prompt(self, system: str | None, turns: Sequence[Turn]) -> list[int]:
        """Ids that ask for an answer to the last turn. ModelError where the template fails."""
        return list(self._step(system, turns).prompt.tokens)

    def opens_thought(self, system: str | None, turns: Sequence[Turn]) -> bool:
        """Whether the template itself begins the answer's reasoning."""
        return opens_thought(self._step(system, turns).prompt.text)

    def emitted(self, text: str, tokens: Sequence[int]) -> tuple[int, ...]:
        """`tokens` if `text` is theirs, else none: a stop string may have cut inside a token."""
        data = b"".join(self._vocabulary.piece(token) for token in tokens)
        return tuple(tokens) if data.decode(errors="replace") == text else ()

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
        tokens = prompt.tokens + self._ids(answer)
        texts = dict.fromkeys((answer.text, answer.text.rstrip(), answer.text.strip()))
        return (*(_Written(prompt.text + text, tokens) for text in texts), prompt)

    def _ids(self, answer: Answer) -> tuple[int, ...]:
        if answer.tokens and answer.tokenizer == self.tokenizer:
            return answer.tokens
        return tuple(self._vocabulary.tokenize(answer.text, add_special=False))

    def _extend(self, start: _Written, text: str) -> _Written:
        rest = text[len(start.text) :]
        return _Written(text, (*start.tokens, *self._vocabulary.tokenize(rest, add_special=False)))


def _begins(text: str, start: _Written) -> bool:
    return bool(start.text) and text.startswith(start.text)
