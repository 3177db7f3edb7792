"""OpenAI's chat completions and completions, whole and as chunks, with llama.cpp's `timings`.

A stream says each tool call in one piece with its index and id.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from localspec import __version__
from localspec.decode.logprobs import TokenLogprobs
from localspec.serve.answer import (
    AnswerChoice,
    Called,
    Ended,
    News,
    Piece,
    ServedAnswer,
    TextKind,
    progress_of,
    timings_of,
)
from localspec.serve.messages import Progress
from localspec.serve.order import Order, Orders
from localspec.serve.protocols import (
    AnswerWriter,
    Door,
    TokenTexts,
    event,
    quoted,
)
from localspec.serve.protocols.llama import NativeWriter, document_of, is_native

FINGERPRINT = f"localspec-{__version__}"
_HOLE = "\0"
"""Stands for a text; no name of a model has it."""
_NAMES = {"text": "content", "thought": "reasoning_content"}


def doors(orders: Orders) -> list[Door]:
    """The addresses of OpenAI's that answer; `/completions` without `/v1` is llama.cpp's, too."""

    def either(body: Any) -> Order:
        return (orders.native if is_native(body) else orders.completion)(body)

    def either_writer(answer: ServedAnswer, model: str) -> AnswerWriter:
        return (NativeWriter if is_native(answer.order.given) else TextWriter)(answer, model)

    return [
        Door(("/v1/chat/completions",), orders.chat, ChatWriter, names_model=True),
        Door(("/chat/completions",), orders.chat, ChatWriter),
        Door(("/v1/completions",), orders.completion, TextWriter, names_model=True),
        Door(("/completions",), either, either_writer),
    ]


class _Chunks(AnswerWriter):
    """What both kinds of OpenAI's documents share."""

    id_, kind, chunk_kind = "", "", ""

    def __init__(self, answer: ServedAnswer, model: str) -> None:
        super().__init__(answer, model)
        self._texts = TokenTexts(answer.order.session.target.vocabulary)
        self._head = {
            "id": self.id_ + answer.key,
            "object": self.kind,
            "created": answer.created,
            "model": model,
            "system_fingerprint": FINGERPRINT,
        }
        self._frames: dict[tuple[int, TextKind], tuple[str, str]] = {}

    @property
    def document(self) -> dict[str, Any]:
        """All of it, when every choice is done."""
        choices = [self._choice(place, each) for place, each in enumerate(self._answer.choices)]
        return {**self._head, "choices": choices, **self._figures, **self._verbose(0)}

    def _verbose(self, place: int) -> dict[str, Any]:
        """With `verbose` llama.cpp's document of a choice, which has the prompt as it was read."""
        if not self._answer.order.given.get("verbose"):
            return {}
        return {"__verbose": document_of(self._answer, place, self._model)}

    def said(self, place: int, news: Sequence[News]) -> list[str]:
        """What is new of a choice."""
        said: list[str] = []
        for each in news:
            if isinstance(each, Piece) and not each.account and not each.logprobs:
                frame = self._frames.get((place, each.kind)) or self._frame(place, each.kind)
                said.append(f"{frame[0]}{quoted(each.text)}{frame[1]}")
                continue
            reason = each.reason if isinstance(each, Ended) else None
            account = None if isinstance(each, Called | Progress) else each.account
            more = {"timings": timings_of([account])} if account else {}
            if isinstance(each, Progress):
                more = {"prompt_progress": progress_of(each)}
            elif isinstance(each, Ended):
                more |= self._verbose(place)
            said.append(event({**self._chunk(place, each, reason), **more}))
        return said

    def _frame(self, place: int, kind: TextKind) -> tuple[str, str]:
        """What stands around the text of a chunk: all of a reply's differ in that alone."""
        chunk = event(self._chunk(place, Piece(kind, _HOLE), None))
        before, _, behind = chunk.rpartition(quoted(_HOLE))
        self._frames[place, kind] = before, behind
        return before, behind

    def closing(self) -> Iterator[str]:
        """Behind all choices: the figures, if they are wanted."""
        if self._answer.order.wants_usage:
            yield event({**self._head, "object": self.chunk_kind, "choices": [], **self._figures})
        yield "data: [DONE]\n\n"

    def _choice(self, place: int, choice: AnswerChoice) -> dict[str, Any]:
        raise NotImplementedError

    def _new(self, news: News) -> dict[str, Any]:
        """What a chunk has of it."""
        raise NotImplementedError

    def _logprobs(self, place: int, said: Sequence[TokenLogprobs]) -> dict[str, Any]:
        """How likely tokens were, as this document has it."""
        raise NotImplementedError

    def _chunk(self, place: int, news: News, reason: str | None) -> dict[str, Any]:
        said = () if isinstance(news, Called | Progress) else news.logprobs
        choice = _choice_of(place, reason, **self._new(news), **self._likely(place, said))
        return {**self._head, "object": self.chunk_kind, "choices": [choice]}

    def _likely(self, place: int, said: Sequence[TokenLogprobs]) -> dict[str, Any]:
        return {"logprobs": self._logprobs(place, said)} if said else {}

    @property
    def _figures(self) -> dict[str, Any]:
        return {"usage": usage(self._answer), "timings": self._answer.timings}


class ChatWriter(_Chunks):
    """Of /v1/chat/completions."""

    id_, kind, chunk_kind = "chatcmpl-", "chat.completion", "chat.completion.chunk"

    def opening(self) -> Iterator[str]:
        """Each choice says who speaks."""
        for place in range(len(self._answer.choices)):
            choice = _choice_of(place, None, delta={"role": "assistant", "content": None})
            yield event({**self._head, "object": self.chunk_kind, "choices": [choice]})

    def _choice(self, place: int, choice: AnswerChoice) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": None}
        message["annotations"] = []
        if choice.thought:
            message["reasoning_content"] = choice.thought
        if choice.calls:
            message |= {
                "content": choice.text or None,
                "tool_calls": [each.call for each in choice.calls],
            }
        likely = self._likely(place, self._answer.order.choices[place].generation.logprobs)
        return _choice_of(place, choice.reason, message=message, **likely)

    def _logprobs(self, place: int, said: Sequence[TokenLogprobs]) -> dict[str, Any]:
        runs = self._answer.choices[place].runs
        is_first = said[0] is self._answer.order.choices[place].generation.logprobs[0]
        return self._texts.chat(said, runs[0].text if runs and is_first else None)

    def _new(self, news: News) -> dict[str, Any]:
        if isinstance(news, Ended | Progress):
            return {"delta": {}}
        if isinstance(news, Called):
            return {"delta": {"tool_calls": [{"index": news.index, **news.call}]}}
        return {"delta": {_NAMES[news.kind]: news.text}}


class TextWriter(_Chunks):
    """Of /v1/completions."""

    id_, kind, chunk_kind = "cmpl-", "text_completion", "text_completion"

    def _choice(self, place: int, choice: AnswerChoice) -> dict[str, Any]:
        likely = self._likely(place, self._answer.order.choices[place].generation.logprobs)
        return _choice_of(place, choice.reason, text=choice.text, **likely)

    def _logprobs(self, place: int, said: Sequence[TokenLogprobs]) -> dict[str, Any]:
        return self._texts.completion(said, 0)

    def _new(self, news: News) -> dict[str, Any]:
        return {"text": getattr(news, "text", "")}


def _choice_of(place: int, reason: str | None, **said: Any) -> dict[str, Any]:
    return {"index": place, "logprobs": None, **said, "finish_reason": reason}


def usage(answer: ServedAnswer) -> dict[str, Any]:
    """Tokens of all choices; a prompt counts once for all of its choices."""
    n_prompt, n_tokens = answer.order.n_prompt, answer.n_tokens
    return {
        "prompt_tokens": n_prompt,
        "completion_tokens": n_tokens,
        "total_tokens": n_prompt + n_tokens,
        "prompt_tokens_details": {"cached_tokens": answer.n_cached},
        "completion_tokens_details": {"reasoning_tokens": answer.n_thought},
    }
