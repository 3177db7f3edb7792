"""`logit_bias`: what is added to the scores of tokens, as OpenAI and llama.cpp write it.

    {"123": -1.5}      {123: -1.5, " Paris": 2}      [[123, -1.5], [" Paris", false]]

A key that is a number, or its digits, is an id. Another text means each of its tokens. `false`
forbids them. Several values for one token add up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any

from localspec.dialogue.specials import Specials
from localspec.engine.base import Vocabulary
from localspec.errors import UserError
from localspec.sampling_fields import Sampling, is_a

Bias = tuple[int | str, float | None]
"""An id or a text, and what is added; None: never chosen."""
LARGEST = 1000.0
_WANTED = (
    f"a mapping of token ids to false or a number from -{LARGEST:g} to {LARGEST:g}, nor a list of"
    " such pairs"
)


def wanted_biases(value: Any) -> str | None:
    """The values that are accepted, in words; None if this one is valid."""
    pairs = _pairs(value)
    is_right = pairs is not None and all(_is_right(key, bias) for key, bias in pairs)
    return None if is_right else _WANTED


def biases_of(value: Any) -> tuple[Bias, ...]:
    """Of a valid value."""
    return tuple((_key(key), None if bias is False else bias) for key, bias in _pairs(value) or ())


def with_biases(sampling: Sampling, biases: Sequence[Bias], vocabulary: Vocabulary) -> Sampling:
    """The same with biases of this vocabulary's ids. UserError for an id that it lacks."""
    banned, added = set(sampling.banned), dict(sampling.bias)
    for key, bias in biases:
        for token in _ids(key, vocabulary):
            if bias is None:
                banned.add(token)
            else:
                added[token] = added.get(token, 0.0) + bias
    return replace(sampling, banned=frozenset(banned), bias=tuple(sorted(added.items())))


def _pairs(value: Any) -> list[tuple[Any, Any]] | None:
    if isinstance(value, Mapping):
        return list(value.items())
    if not isinstance(value, Sequence) or isinstance(value, str):
        return None
    is_right = all(isinstance(each, Sequence) and len(each) == 2 for each in value)
    return [(each[0], each[1]) for each in value] if is_right else None


def _is_right(key: Any, bias: Any) -> bool:
    if not (is_a(key, Integral) or (isinstance(key, str) and key)):
        return False
    return bias is False or (is_a(bias, Real) and abs(bias) <= LARGEST)


def _key(key: Any) -> int | str:
    is_id = not isinstance(key, str) or (key.isascii() and key.isdecimal() and len(key) < 20)
    return int(key) if is_id else key


def _ids(key: int | str, vocabulary: Vocabulary) -> list[int]:
    if isinstance(key, str):
        return Specials(vocabulary).ids(key, "", add_special=False, goes_on=True)
    if not 0 <= key < vocabulary.n_tokens:
        n_last = vocabulary.n_tokens - 1
        raise UserError(f"logit_bias has the token {key}, and the model's are 0 to {n_last:,}")
    return [key]
