"""A protocol: addresses at which replies are ordered, and how their answers and errors are written.

Each reads a body into the one `Order` and writes what the one `Answer` has; none knows the engine.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import exp
from typing import Any

from localspec.decode.logprobs import TokenLogprobs
from localspec.engine.vocabulary import Vocabulary, spelled
from localspec.serve.answer import News, ServedAnswer
from localspec.serve.order import Order
from localspec.serve.problem import Problem

_encoded = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
quoted = json.encoder.encode_basestring
"""A text as JSON has it."""
PING = ": ping\n\n"
"""A comment of an event stream, which clients pass over."""


def event(document: Any, name: str | None = None) -> str:
    """One event of a stream."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {_encoded(document)}\n\n"


class AnswerWriter:
    """Writes one answer: whole as `document`, or as texts of an event stream. `model`: its name."""

    ping = PING
    """What fills a silence."""

    def __init__(self, answer: ServedAnswer, model: str) -> None:
        self._answer, self._model = answer, model

    @property
    def document(self) -> Any:
        """All of it, when every choice is done."""
        raise NotImplementedError

    def opening(self) -> Iterable[str]:
        """What a stream begins with."""
        return ()

    def said(self, place: int, news: Sequence[News]) -> Iterable[str]:
        """What is new of a choice."""
        raise NotImplementedError

    def closing(self) -> Iterable[str]:
        """What a stream ends with, behind all choices."""
        return ()

    def failed(self, problem: Problem) -> str:
        """An error in a stream that has begun; its last event."""
        return event(problem.as_openai())


@dataclass(frozen=True, slots=True)
class Door:
    """Addresses at which replies are ordered with POST. `writer` takes an answer and the name of
    the model; `written` is how an error is written. `names_model`: its API has each request name
    one, which a strict server keeps to."""

    paths: Sequence[str]
    read: Callable[[Any], Order]
    writer: Callable[[ServedAnswer, str], AnswerWriter]
    written: Callable[[Problem], dict[str, Any]] = Problem.as_openai
    names_model: bool = False


class TokenTexts:
    """How likely a reply's tokens were. Every one is there, those of thoughts and marks too: bytes
    tell what each adds."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def chat(self, said: Sequence[TokenLogprobs], begun: str | None = None) -> dict[str, Any]:
        """OpenAI's of chat. `begun`: what an answer begins with whose first token is here; a space
        that the answer leaves out is left out here, too."""
        content = [
            {
                **self._entry(each.token, each.logprob),
                "top_logprobs": [self._entry(*pair) for pair in each.top],
            }
            for each in said
        ]
        if begun and not begun[0].isspace():
            whole = self._text(said[0].token)
            text = whole.lstrip()
            written = list(self._bytes(said[0].token))[len(whole) - len(text) :]
            content[0] |= {"token": text, "bytes": written}
        return {"content": content, "refusal": None}

    def completion(self, said: Sequence[TokenLogprobs], offset: int) -> dict[str, Any]:
        """OpenAI's of completions; `offset`: characters before the first token."""
        texts, offsets = [self._text(each.token) for each in said], list[int]()
        for text in texts:
            offsets.append(offset)
            offset += len(text)
        return {
            "tokens": texts,
            "token_logprobs": [each.logprob for each in said],
            "top_logprobs": [{self._text(i): p for i, p in reversed(each.top)} for each in said],
            "text_offset": offsets,
        }

    def native(self, said: Sequence[TokenLogprobs], *, drawn: bool) -> list[dict[str, Any]]:
        """llama.cpp's `completion_probabilities`; `drawn`: chances that tokens were drawn by."""
        top = "top_probs" if drawn else "top_logprobs"
        return [
            {
                **self._native(each.token, each.logprob, drawn),
                top: [self._native(i, p, drawn) for i, p in each.top],
            }
            for each in said
        ]

    def _native(self, token: int, logprob: float, drawn: bool) -> dict[str, Any]:
        entry = {"id": token, **self._entry(token, logprob)}
        return {**entry, "prob": exp(entry.pop("logprob"))} if drawn else entry

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        return {
            "token": self._text(token),
            "logprob": logprob,
            "bytes": list(self._bytes(token)),
        }

    def _bytes(self, token: int) -> bytes:
        return spelled(self._vocabulary, token)

    def _text(self, token: int) -> str:
        return self._bytes(token).decode(errors="replace")
