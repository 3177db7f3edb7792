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
from itertools import product
from typing import Any

from localspec.dialogue.borders import Rendered
from localspec.dialogue.markup import Markup, Opening
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
class _Kept:
    """An answer whose ids stand for a part of a rendered prompt."""

    start: int
    end: int
    tokens: tuple[int, ...]


class Transcript:
    """Prompts for one model. `tokenizer` is a digest; ids of another tokenizer are not reused."""

    def __init__(self, prompts: Prompts, tokenizer: str | None, markup: Markup) -> None:
        self._prompts = prompts
        self._markup = markup
        self._vocabulary = prompts.vocabulary
        self.tokenizer = tokenizer
        self._asked: tuple[str | None, tuple[Turn, ...]] | None = None
        self._rendered: Rendered | None = None
        self._ids: list[int] = []
        self._known: dict[tuple[str, bool], list[int]] = {}

    def use(self, prompts: Prompts) -> None:
        """Go on with what a template is told otherwise."""
        if prompts is not self._prompts:
            self._prompts, self._rendered = prompts, None

    def prompt(self, system: str | None, turns: Sequence[Turn]) -> list[int]:
        """Ids that ask for an answer to the last turn. ModelError where the template fails."""
        self._write(system, turns)
        return list(self._ids)

    def opening(self, system: str | None, turns: Sequence[Turn]) -> Opening:
        """Where the answer begins: the template may have opened a section."""
        prompt = self._write(system, turns)
        return self._markup.opening(prompt.clean, prompt.asking)

    def _write(self, system: str | None, turns: Sequence[Turn]) -> Rendered:
        asked = system, tuple(turns)
        if self._rendered is None or asked != self._asked:
            rendered = self._prompts.rendered(messages(system, turns))
            self._ids = self._tokens(rendered, self._kept(rendered, turns))
            self._asked, self._rendered = asked, rendered
        return self._rendered

    def _tokens(self, prompt: Rendered, kept: Sequence[_Kept]) -> list[int]:
        ids: list[int] = []
        known: dict[tuple[str, bool], list[int]] = {}
        start = 0
        for each in (*kept, _Kept(len(prompt.text), 0, ())):
            key = prompt.text[start : each.start], start > 0
            found = self._known.get(key) or self._prompts.stretch(prompt, start, each.start)
            known[key] = found
            ids += (*found, *each.tokens)
            start = each.end
        self._known = known
        return ids

    def _kept(self, prompt: Rendered, turns: Sequence[Turn]) -> list[_Kept]:
        """The answers that the prompt repeats, with the ids that the model gave them."""
        # What a template writes behind the last question asks for an answer.
        asking = [prompt.text[end:] for end in _ends(prompt, len(prompt.messages) - 1)]
        said = [i for i, each in enumerate(prompt.messages) if each["role"] == "assistant"]
        answers = [turn.answer for turn in turns if turn.answer and messages(None, [turn])[1:]]
        kept: list[_Kept] = []
        for i, answer in zip(said, answers, strict=True):
            if answer.tokens and answer.tokenizer == self.tokenizer:
                found = self._repeated(prompt, i, asking, answer.tokens)
                if found and found.start >= (kept[-1].end if kept else 0):
                    kept.append(found)
        return kept

    def _repeated(
        self, prompt: Rendered, i: int, asking: Sequence[str], tokens: tuple[int, ...]
    ) -> _Kept | None:
        """Where message `i` is, if the prompt repeats what the model said."""
        span = prompt.span(i)
        if span is None:
            return None
        start, end = (prompt.span(i, "thought") or span)[0], span[1]
        places = product(_ends(prompt, i - 1) if i else (), asking)
        firsts = [at + len(text) for at, text in places if prompt.text.startswith(text, at)]
        for spelled in {self._spelled(tokens, with_control=each): 0 for each in (True, False)}:
            same = (n for n in firsts if prompt.said(n, end).strip() == spelled.strip())
            first = next(same, None)
            if first is None and not firsts:
                first = _before(prompt, start, prompt.said(start, end), spelled)
            if first is not None and first <= end:
                return _Kept(first, _ends_with(prompt, end, spelled), tokens)
        return None

    def _spelled(self, tokens: Sequence[int], *, with_control: bool) -> str:
        """The text of tokens; `with_control`: with the names of control tokens."""
        data = b""
        for token in tokens:
            piece = self._vocabulary.piece(token)
            data += piece or (self._vocabulary.text(token).encode() if with_control else b"")
        return data.decode(errors="replace")


def _ends(prompt: Rendered, i: int) -> Sequence[int]:
    """Where message `i` can end: the spaces behind it are its own or the template's."""
    span = prompt.span(i)
    if span is None:
        return ()
    return tuple({_ends_with(prompt, span[1], prompt.messages[i]["content"]): 0, span[1]: 0})


def _before(prompt: Rendered, start: int, said: str, spelled: str) -> int | None:
    """Where it begins: the template may write what came first, or have trimmed spaces."""
    core = spelled.rstrip()
    if not core.endswith(said):
        return None
    first = core[: len(core) - len(said)]
    if prompt.text.endswith(first, 0, start):
        return start - len(first)
    return start if not first.strip() else None


def _ends_with(prompt: Rendered, end: int, text: str) -> int:
    """Where a text ends that may have spaces at its end; templates can have trimmed them."""
    spaces = text[len(text.rstrip()) :]
    return end + (len(spaces) if prompt.text.startswith(spaces, end) else 0)
