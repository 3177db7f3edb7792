"""llama.cpp's /completion and /infill: a document a reply, which `verbose` puts beside others'."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from localspec.decode.logprobs import TokenLogprobs
from localspec.sampling_fields import SAMPLING
from localspec.serve.answer import (
    Ended,
    News,
    Piece,
    ServedAnswer,
    progress_of,
    timings_of,
)
from localspec.serve.messages import Progress
from localspec.serve.order import Order, Orders, text_of
from localspec.serve.problem import refused
from localspec.serve.protocols import AnswerWriter, Door, TokenTexts, event
from localspec.session.reply_options import ReplyOptions
from localspec.session.session import Session

OFF = {
    "dynatemp_range": 0.0, "dynatemp_exponent": 1.0, "top_n_sigma": -1.0, "xtc_probability": 0.0,
    "xtc_threshold": 0.1, "typical_p": 1.0, "dry_multiplier": 0.0, "dry_base": 1.75,
    "dry_allowed_length": 2, "dry_penalty_last_n": 0, "dry_sequence_breakers": [], "mirostat": 0,
    "mirostat_tau": 5.0, "mirostat_eta": 0.1, "adaptive_target": -1.0, "adaptive_decay": 0.9,
    "n_keep": 0, "n_discard": 0, "min_keep": 0, "lora": [], "backend_sampling": False,
    "samplers": ["penalties", "top_k", "top_p", "min_p", "temperature"],
}  # fmt: skip
"""What llama.cpp's server can do beside it, with the values that turn it off, and the order of what
is done: clients show all of them."""


def doors(orders: Orders) -> list[Door]:
    """The addresses that are llama.cpp's alone."""
    return [
        Door(("/completion",), orders.native, NativeWriter),
        Door(("/infill",), orders.infill, NativeWriter),
    ]


_NATIVE = ("n_predict", "return_tokens", "response_fields")
"""Fields by which llama.cpp's clients are known, if they name a model, too."""


def is_native(body: Any) -> bool:
    """Whether a client of llama.cpp's asks: OpenAI's name a model."""
    if not isinstance(body, Mapping):
        return False
    return not body.get("model") or any(name in body for name in _NATIVE)


class NativeWriter(AnswerWriter):
    """Of /completion: one document a reply, or a list of them where several were asked for."""

    def __init__(self, answer: ServedAnswer, model: str) -> None:
        super().__init__(answer, model)
        self._n_told = [0] * len(answer.choices)
        self._fields = answer.order.given.get("response_fields") or []
        if not isinstance(self._fields, list) or not all(isinstance(f, str) for f in self._fields):
            raise refused("response_fields is no list of names", "response_fields")

    @property
    def document(self) -> Any:
        """All of it, when every choice is done."""
        found = [self._whole(place) for place in range(len(self._answer.choices))]
        return found[0] if len(found) == 1 else found

    def said(self, place: int, news: Sequence[News]) -> Iterator[str]:
        """What is new of a choice."""
        for each in news:
            if isinstance(each, Ended):
                said = _likely(self._answer.order, place, each.logprobs)
                yield event({**self._whole(place), "content": "", "tokens": [], **said})
            elif isinstance(each, Piece | Progress):
                yield event(self._part(place, each))

    def _part(self, place: int, news: Piece | Progress) -> dict[str, Any]:
        if isinstance(news, Progress):
            more = {"prompt_progress": progress_of(news), **self._reading(news)}
            text, tokens = "", ()
        else:
            more = {"timings": timings_of([news.account])} if news.account else {}
            more |= _likely(self._answer.order, place, news.logprobs)
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
        return selected(document_of(self._answer, place, self._model), self._fields)


def document_of(answer: ServedAnswer, place: int, model: str) -> dict[str, Any]:
    """All of a choice that is done."""
    order, choice, session = answer.order, answer.choices[place], answer.order.session
    asked, end = order.choices[place], choice.end
    generation = asked.generation
    assert end
    return {
        "index": place,
        "content": choice.text,
        "tokens": list(generation.tokens) if order.given.get("return_tokens") else [],
        "id_slot": -1,
        "stop": True,
        "model": model,
        "tokens_predicted": end.account.n_tokens,
        "tokens_evaluated": generation.n_prompt,
        "generation_settings": settings_of(asked.options, session)
        | {"stream": order.is_stream, "timings_per_token": order.wishes.accounts},
        "prompt": text_of(generation.history[: generation.n_prompt], session.target.vocabulary),
        "has_new_line": "\n" in choice.text,
        "truncated": end.account.finish_reason == "context",
        "stop_type": _stop_type(end),
        "stopping_word": end.stopped_by or "",
        "tokens_cached": end.account.n_cached,
        "timings": timings_of([end.account]),
        **_likely(order, place, generation.logprobs),
    }


def _likely(order: Order, place: int, said: Sequence[TokenLogprobs]) -> dict[str, Any]:
    """How likely tokens were, where that is wanted."""
    options = order.choices[place].options
    if options.logprobs is None:
        return {}
    texts = TokenTexts(order.session.target.vocabulary)
    return {"completion_probabilities": texts.native(said, drawn=options.drawn_logprobs)}


def _stop_type(end: Ended) -> str:
    if end.stopped_by:
        return "word"
    return "eos" if end.account.finish_reason == "stop" else "limit"


def settings_of(options: ReplyOptions, session: Session) -> dict[str, Any]:
    """How a reply is made, with llama.cpp's names."""
    sampling, grammar = options.sampling, options.grammar
    n_predict = -1 if options.max_tokens is None else options.max_tokens
    return {
        **OFF,
        "n_ctx": session.n_ctx,
        "n_predict": n_predict,
        "max_tokens": n_predict,
        "seed": sampling.seed,
        **{name: getattr(sampling, name) for name in SAMPLING},
        "logit_bias": _biases(options, session),
        "min_tokens": options.min_tokens,
        "n_probs": options.logprobs or 0,
        "post_sampling_probs": options.drawn_logprobs,
        "stop": list(options.stop),
        "ignore_eos": options.ignore_eos,
        "grammar": grammar.text if grammar else "",
    }


def _biases(options: ReplyOptions, session: Session) -> list[dict[str, Any]]:
    """By id; null is minus infinity."""
    sampling = session.generations.sampling(options)
    found = [{"token": token, "bias": bias} for token, bias in sampling.bias]
    return found + [{"token": token, "bias": None} for token in sorted(sampling.banned)]


def selected(whole: dict[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """The fields that are asked for, by their paths; those that do not exist are left out."""
    if not fields:
        return whole
    found = {path: _at(whole, path.split("/")) for path in fields}
    return {path: value for path, value in found.items() if value is not _NONE}


_NONE = object()


def _at(document: Any, path: Sequence[str]) -> Any:
    for name in path:
        if not isinstance(document, Mapping) or name not in document:
            return _NONE
        document = document[name]
    return document
