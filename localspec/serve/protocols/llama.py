"""llama.cpp's /completion and /infill, and its pages about tokens, templates and the server.

`/completions` without `/v1` is llama.cpp's where it says `n_predict`, else OpenAI's.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from localspec.decode.logprobs import TokenLogprobs
from localspec.sampling_fields import SAMPLING
from localspec.serve.answer import (
    AnswerChoice,
    Ended,
    News,
    Piece,
    ServedAnswer,
    progress_of,
    timings_of,
)
from localspec.serve.messages import Progress
from localspec.serve.order import Order, Orders
from localspec.serve.problem import Problem
from localspec.serve.protocols.openai import TextWriter
from localspec.serve.protocols.protocol import PING, AnswerWriter, Door, event
from localspec.session.config import ReplyOptions

_NATIVE = ("n_predict", "return_tokens", "response_fields")
"""Fields by which llama.cpp's clients are known at the address that both have."""


def doors(orders: Orders) -> list[Door]:
    """The addresses of llama.cpp's that answer."""

    def writer(answer: ServedAnswer, model: str) -> AnswerWriter:
        return NativeWriter(answer, model, orders)

    def either(body: Any) -> Order:
        return (orders.native if _is_native(body) else orders.completion)(body)

    def either_writer(answer: ServedAnswer, model: str) -> AnswerWriter:
        is_native = _is_native(answer.order.given)
        return writer(answer, model) if is_native else TextWriter(answer, model)

    return [
        Door(("/completion",), orders.native, writer),
        Door(("/completions",), either, either_writer),
        Door(("/infill",), orders.infill, writer),
    ]


def _is_native(body: Any) -> bool:
    return isinstance(body, Mapping) and any(name in body for name in _NATIVE)


class NativeWriter:
    """Of /completion: one document a reply, or a list of them where several were asked for."""

    ping = PING

    def __init__(self, answer: ServedAnswer, model: str, orders: Orders) -> None:
        self._answer, self._model, self._orders = answer, model, orders
        self._n_told = [0] * len(answer.choices)

    @property
    def document(self) -> Any:
        """All of it, when every choice is done."""
        found = [self._whole(place, each) for place, each in enumerate(self._answer.choices)]
        return found[0] if len(found) == 1 else found

    def opening(self) -> Iterable[str]:
        """Nothing."""
        return ()

    def said(self, place: int, news: Sequence[News]) -> Iterator[str]:
        """What is new of a choice."""
        for each in news:
            if isinstance(each, Ended):
                end = self._whole(place, self._answer.choices[place])
                yield event(
                    {**end, "content": "", "tokens": [], **self._likely(place, each.logprobs)}
                )
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
            more |= self._likely(place, news.logprobs)
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

    def _likely(self, place: int, said: Sequence[TokenLogprobs]) -> dict[str, Any]:
        texts = self._answer.order.choices[place].texts
        return {"completion_probabilities": texts.native(said)} if texts else {}

    def _reading(self, news: Progress) -> dict[str, Any]:
        """The figures while a prompt is read, where they are wanted."""
        if not self._answer.order.wishes.accounts:
            return {}
        read = {"prompt_n": news.n_read, "prompt_ms": 1e3 * news.read_s}
        return {"timings": {"cache_n": news.n_cached, **read, "predicted_n": 0, "predicted_ms": 0}}

    def _whole(self, place: int, choice: AnswerChoice) -> dict[str, Any]:
        given, asked = self._answer.order.given, self._answer.order.choices[place]
        generation, end = asked.generation, choice.end
        assert end
        how = settings_of(asked.options, self._orders.session.n_ctx)
        whole = {
            "index": place,
            "content": choice.text,
            "tokens": list(generation.tokens) if given.get("return_tokens") else [],
            "id_slot": -1,
            "stop": True,
            "model": self._model,
            "tokens_predicted": end.account.n_tokens,
            "tokens_evaluated": generation.n_prompt,
            "generation_settings": how,
            "prompt": self._orders.text_of(generation.history[: generation.n_prompt]),
            "has_new_line": "\n" in choice.text,
            "truncated": False,
            "stop_type": _stop_type(end),
            "stopping_word": end.stopped_by or "",
            "tokens_cached": end.account.n_cached,
            "timings": timings_of([end.account]),
            **self._likely(place, generation.logprobs),
        }
        return _selected(whole, given.get("response_fields"))


def _stop_type(end: Ended) -> str:
    if end.stopped_by:
        return "word"
    return "eos" if end.account.finish_reason == "stop" else "limit"


def settings_of(options: ReplyOptions, n_ctx: int) -> dict[str, Any]:
    """How a reply is made, with llama.cpp's names."""
    sampling, grammar = options.sampling, options.grammar
    n_predict = -1 if options.max_tokens is None else options.max_tokens
    return {
        "n_ctx": n_ctx,
        "n_predict": n_predict,
        "max_tokens": n_predict,
        "seed": sampling.seed,
        **{name: getattr(sampling, name) for name in SAMPLING},
        "logit_bias": [[key, False if bias is None else bias] for key, bias in options.logit_bias],
        "min_tokens": options.min_tokens,
        "n_probs": options.logprobs or 0,
        "stop": list(options.stop),
        "ignore_eos": options.ignore_eos,
        "grammar": grammar.text if grammar else "",
    }


def _selected(whole: dict[str, Any], fields: Any) -> dict[str, Any]:
    """The fields that are asked for, by their paths; those that do not exist are left out."""
    if not fields:
        return whole
    found = {str(path): _at(whole, str(path).split("/")) for path in fields}
    return {path: value for path, value in found.items() if value is not _NONE}


_NONE = object()


def _at(document: Any, path: Sequence[str]) -> Any:
    for name in path:
        if not isinstance(document, Mapping) or name not in document:
            return _NONE
        document = document[name]
    return document
