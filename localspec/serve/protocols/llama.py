"""llama.cpp's /completion and /infill, and its pages about tokens, templates and the server.

`/completions` without `/v1` is both's: OpenAI's clients name a model, llama.cpp's need not.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from localspec.serve.answer import (
    Ended,
    News,
    Piece,
    ServedAnswer,
    progress_of,
    timings_of,
)
from localspec.serve.messages import Progress
from localspec.serve.order import Order, Orders
from localspec.serve.problem import Problem, refused
from localspec.serve.protocols.native import document_of, likely, selected
from localspec.serve.protocols.openai import TextWriter
from localspec.serve.protocols.protocol import PING, AnswerWriter, Door, event

_NATIVE = ("n_predict", "return_tokens", "response_fields")
"""Fields by which llama.cpp's clients are known, if they name a model, too."""


def doors(orders: Orders) -> list[Door]:
    """The addresses of llama.cpp's that answer."""

    def writer(answer: ServedAnswer, model: str) -> AnswerWriter:
        return NativeWriter(answer, model, orders)

    def either(body: Any) -> Order:
        return (orders.native if _is_native(body) else orders.completion)(body)

    def either_writer(answer: ServedAnswer, model: str) -> AnswerWriter:
        is_native = _is_native(answer.order.given)
        return writer(answer, model) if is_native else TextWriter(answer, model, orders)

    return [
        Door(("/completion",), orders.native, writer),
        Door(("/completions",), either, either_writer),
        Door(("/infill",), orders.infill, writer),
    ]


def _is_native(body: Any) -> bool:
    if not isinstance(body, Mapping):
        return False
    return not body.get("model") or any(name in body for name in _NATIVE)


class NativeWriter:
    """Of /completion: one document a reply, or a list of them where several were asked for."""

    ping = PING

    def __init__(self, answer: ServedAnswer, model: str, orders: Orders) -> None:
        self._answer, self._model, self._orders = answer, model, orders
        self._n_told = [0] * len(answer.choices)
        self._fields = answer.order.given.get("response_fields") or []
        if not isinstance(self._fields, list) or not all(isinstance(f, str) for f in self._fields):
            raise refused("response_fields is no list of names", "response_fields")

    @property
    def document(self) -> Any:
        """All of it, when every choice is done."""
        found = [self._whole(place) for place in range(len(self._answer.choices))]
        return found[0] if len(found) == 1 else found

    def opening(self) -> Iterable[str]:
        """Nothing."""
        return ()

    def said(self, place: int, news: Sequence[News]) -> Iterator[str]:
        """What is new of a choice."""
        for each in news:
            if isinstance(each, Ended):
                said = likely(self._answer.order.choices[place], each.logprobs)
                yield event({**self._whole(place), "content": "", "tokens": [], **said})
            elif isinstance(each, Piece | Progress):
                yield event(self._part(place, each))

    def closing(self) -> Iterable[str]:
        """Nothing: the last event of each choice says that it stops."""
        return ()

    def failed(self, problem: Problem) -> str:
        """An error in a stream that has begun."""
        return event(problem.as_openai())

    def _part(self, place: int, news: Piece | Progress) -> dict[str, Any]:
        if isinstance(news, Progress):
            more = {"prompt_progress": progress_of(news), **self._reading(news)}
            text, tokens = "", ()
        else:
            more = {"timings": timings_of([news.account])} if news.account else {}
            more |= likely(self._answer.order.choices[place], news.logprobs)
            text, tokens = news.text, news.tokens
        self._n_told[place] += len(tokens)
        return {
            "index": place,
            "content": text,
            "tokens": list(tokens),
            "stop": False,
            "id_slot": -1,
            "tokens_predicted": self._n_told[place],
            "tokens_evaluated": self._answer.order.choices[place].generation.n_prompt,
            **more,
        }

    def _reading(self, news: Progress) -> dict[str, Any]:
        """The figures while a prompt is read, where they are wanted."""
        if not self._answer.order.wishes.accounts:
            return {}
        read = {"prompt_n": news.n_read, "prompt_ms": 1e3 * news.read_s}
        return {"timings": {"cache_n": news.n_cached, **read, "predicted_n": 0, "predicted_ms": 0}}

    def _whole(self, place: int) -> dict[str, Any]:
        whole = document_of(self._answer, place, self._model, self._orders)
        return selected(whole, self._fields)
