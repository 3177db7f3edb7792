"""llama.cpp's document of one reply: of /completion, and what `verbose` puts beside others."""

from collections.abc import Mapping, Sequence
from typing import Any

from localspec.decode.logprobs import TokenLogprobs
from localspec.sampling_fields import SAMPLING
from localspec.serve.answer import Ended, ServedAnswer, timings_of
from localspec.serve.order import OneAnswer, Orders
from localspec.session.config import ReplyOptions
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


def document_of(answer: ServedAnswer, place: int, model: str, orders: Orders) -> dict[str, Any]:
    """All of a choice that is done."""
    given, asked, choice = answer.order.given, answer.order.choices[place], answer.choices[place]
    generation, end = asked.generation, choice.end
    assert end
    return {
        "index": place,
        "content": choice.text,
        "tokens": list(generation.tokens) if given.get("return_tokens") else [],
        "id_slot": -1,
        "stop": True,
        "model": model,
        "tokens_predicted": end.account.n_tokens,
        "tokens_evaluated": generation.n_prompt,
        "generation_settings": settings_of(asked.options, orders.session)
        | {"stream": answer.order.is_stream, "timings_per_token": answer.order.wishes.accounts},
        "prompt": orders.text_of(generation.history[: generation.n_prompt]),
        "has_new_line": "\n" in choice.text,
        "truncated": end.account.finish_reason == "context",
        "stop_type": _stop_type(end),
        "stopping_word": end.stopped_by or "",
        "tokens_cached": end.account.n_cached,
        "timings": timings_of([end.account]),
        **likely(asked, generation.logprobs),
    }


def likely(asked: OneAnswer, said: Sequence[TokenLogprobs]) -> dict[str, Any]:
    """How likely tokens were, where that is wanted."""
    if asked.texts is None:
        return {}
    drawn = asked.options.drawn_logprobs
    return {"completion_probabilities": asked.texts.native(said, drawn=drawn)}


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
