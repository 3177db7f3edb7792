"""How one reply is made, and how a user's keywords become that.

The command line and the Python API both ask here, so that the seed and the way of verifying are
found alike. `session.session_config` has the same of a session.

`Recommended` is the sampling that a model's file recommends.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from numbers import Integral, Real
from typing import Any, Literal, TypedDict, Unpack

from localspec.decode.generation import Verification
from localspec.dialogue.specials import Specials
from localspec.dialogue.thinking import LEVELS
from localspec.dialogue.tools import Tools, checked_tools
from localspec.engine.base import Vocabulary
from localspec.engine.constraint import Grammar, grammar_of
from localspec.errors import UserError, no_such
from localspec.fields import Think
from localspec.gguf.cursor import shown
from localspec.sampling_fields import SAMPLING, Sampling, SamplingRow, is_a
from localspec.settings import Speculation


@dataclass(frozen=True, slots=True)
class Recommended:
    """Sampling by the names of `Sampling` that a file recommends, and one sentence about it."""

    values: Mapping[str, float]
    note: str | None = None


_KEYS = {each.file_key: each.name for each in SAMPLING.values() if each.file_key}
"""Names in files and ours."""


def recommended_sampling(given: Mapping[str, Any]) -> Recommended:
    """What is usable of a file's `general.sampling` keys."""
    values: dict[str, float] = {}
    refused: list[str] = []
    for key, name in _KEYS.items():
        value = given.get(key)
        if name == "top_k" and isinstance(value, int) and value < 0:
            value = 0  # all of them, as llama.cpp takes it
        if value is not None and not SAMPLING[name].accepts(value):
            refused.append(f"{key} {shown(str(value))}")
        elif value is not None:
            values[name] = round(value, 6)  # float32 in files
    parts = [f"{name.replace('_', '-')} {value:g}" for name, value in values.items()]
    notes = [f"the model's file recommends {', '.join(parts)}: used where no option says otherwise"]
    refusal = f"the file's sampling of {', '.join(refused)} makes no sense and is ignored"
    notes = (notes if values else []) + ([refusal] if refused else [])
    return Recommended(values, "; ".join(notes) or None)


Bias = tuple[int | str, float | None]
"""An id or a text, and what is added; None: never chosen."""


@dataclass(frozen=True, slots=True)
class ReplyOptions:
    """How one reply is made. `max_tokens` None: until the model ends it or the context is full.

    `spec` and `draft_max` default to the session's. A drafter that the session has not loaded
    drafts nothing, and the session's `draft_max` is the limit. `think` and `template_args` are for
    the chat template. `chosen`: the parts of `sampling` that somebody chose, None: all. `grammar`:
    what the reply keeps. `logprobs`: for so many likely tokens at each place; None: for none.
    `drawn_logprobs`: they are those of what the tokens were drawn from.
    """

    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    verify: Verification = "match"
    ignore_eos: bool = False
    min_tokens: int = 0
    logprobs: int | None = None
    drawn_logprobs: bool = False
    logit_bias: tuple[Bias, ...] = ()
    spec: Speculation | None = None
    draft_max: int | None = None
    think: Think | None = None
    template_args: Mapping[str, Any] = field(default_factory=dict[str, Any])
    chosen: frozenset[str] | None = None
    grammar: Grammar | None = None
    tools: Tools | None = None

    def with_recommended(self, values: Mapping[str, float]) -> "ReplyOptions":
        """With a file's sampling where it was not `chosen`."""
        if self.chosen is None or not values.keys() - self.chosen:
            return self
        own = {name: value for name, value in values.items() if name not in self.chosen}
        return replace(self, sampling=replace(self.sampling, **own), chosen=None)


class ReplyKeywords(TypedDict, total=False):
    """How a reply is made. Defaults are the same for the library and the command line.

    `temperature` (0.8; 0 takes the best token), `top_k` (40), `top_p` (0.95), `min_p` (0.05),
    `repeat_penalty` (1.0), `frequency_penalty` (0), `presence_penalty` (0) of the last
    `repeat_last_n` (64) tokens, or all of them as `sampling`; `seed` (random); `max_tokens` (no
    limit); `stop`: texts before which it ends; `verify` ("auto": "match" with a seed, else
    "rejection"); `ignore_eos`: never choose an end token; `min_tokens`: not before so many.
    `logit_bias`: what is added to the scores of tokens, by id or text, and False for those that are
    never chosen. `logprobs`: how likely each token was, and so many of the likeliest beside it;
    `drawn_logprobs`: behind all filters. What a model's file recommends replaces the defaults of
    sampling. `think` ("on", "off", "low", "medium", "high") and `template_args` (variables by
    name) are for the chat template. The reply keeps one of `schema` (a JSON schema: an object, a
    bool, or its JSON), `grammar` (a text in GBNF or Lark) and `regex`. `tools` are functions as
    OpenAI writes them, `tool_choice` ("auto", "none", "required", a name) whether one is called,
    `parallel_tool_calls` (True) whether several are.
    """

    sampling: Sampling | None
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repeat_penalty: float
    frequency_penalty: float
    presence_penalty: float
    repeat_last_n: int
    seed: int | None
    max_tokens: int | None
    min_tokens: int | None
    logprobs: int | None
    drawn_logprobs: bool
    logit_bias: Mapping[Any, Any] | Sequence[Sequence[Any]] | None
    stop: str | Sequence[str] | None
    verify: Verification | Literal["auto"]
    ignore_eos: bool
    think: Think | None
    template_args: Mapping[str, Any] | None
    schema: Mapping[str, Any] | bool | str | None
    grammar: str | None
    regex: str | None
    tools: Sequence[Mapping[str, Any]] | None
    tool_choice: str | Mapping[str, Any] | None
    parallel_tool_calls: bool | None


_NUMBERS: Mapping[str, SamplingRow] = {
    **SAMPLING,
    "seed": SamplingRow("", -inf, is_whole=True),
    "max_tokens": SamplingRow("", 0, is_whole=True),
    "min_tokens": SamplingRow("", 0, is_whole=True),
    "logprobs": SamplingRow("", 0, 1000, is_whole=True),
}
_VERIFICATIONS = ("auto", "match", "rejection")


def reply_options(**keywords: Unpack[ReplyKeywords]) -> ReplyOptions:
    """The options of a reply. A seed is drawn where none is given.

    Raises UserError for an unknown name or an invalid value.
    """
    given: dict[str, Any] = {name: value for name, value in keywords.items() if value is not None}
    for name, value in given.items():
        _check(name, value)
    base: Sampling | None = given.get("sampling")
    has_seed = "seed" in given or base is not None
    verify = given.get("verify", "auto")
    if verify == "auto":
        verify = "match" if has_seed else "rejection"
    numbers = {name: given[name] for name in (*SAMPLING, "seed") if name in given}
    if not has_seed:
        numbers["seed"] = secrets.randbits(32)
    stop = given.get("stop", ())
    return ReplyOptions(
        sampling=replace(base or Sampling(), **numbers),
        max_tokens=given.get("max_tokens"),
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        verify=verify,
        ignore_eos=given.get("ignore_eos", False),
        min_tokens=given.get("min_tokens", 0),
        logprobs=given.get("logprobs"),
        drawn_logprobs=given.get("drawn_logprobs", False),
        logit_bias=biases_of(given.get("logit_bias", {})),
        think=given.get("think"),
        template_args=given.get("template_args", {}),
        chosen=None if base else frozenset(numbers),
        grammar=grammar_of(given),
        tools=checked_tools(
            given.get("tools", ()),
            given.get("tool_choice", "auto"),
            given.get("parallel_tool_calls", True),
        ),
    )


_KINDS: Mapping[str, tuple[Any, str]] = {
    "sampling": (Sampling, "Sampling"), "template_args": (Mapping, "a mapping"),
    "grammar": (str, "a text"), "regex": (str, "a text"),
}  # fmt: skip
"""What else keywords can be, with its words; all others are true or false."""


def _check(name: str, value: Any) -> None:
    """Raise UserError unless a keyword exists and can have that value."""
    if name not in ReplyKeywords.__annotations__:
        raise no_such("keyword", name, ReplyKeywords.__annotations__)
    wanted = wanted_of(name, value)
    if wanted:
        raise UserError(f"{name} {value!r} is not {wanted}")


def wanted_of(name: str, value: Any) -> str | None:
    """The values that a keyword accepts, in words; None if this value is valid."""
    if name in _NUMBERS:
        return None if _NUMBERS[name].accepts(value) else _NUMBERS[name].wanted
    if name == "stop":
        texts = [value] if isinstance(value, str) else value
        is_right = isinstance(texts, Sequence) and all(isinstance(text, str) for text in texts)
        return None if is_right else "a text or several"
    if name == "logit_bias":
        return wanted_biases(value)
    if name == "verify":
        return None if value in _VERIFICATIONS else f"one of {', '.join(_VERIFICATIONS)}"
    if name == "think":
        return None if value in LEVELS else f"one of {', '.join(LEVELS)}"
    if name in ("tools", "tool_choice", "parallel_tool_calls"):
        return None  # they are checked together
    if name == "schema":
        is_right = isinstance(value, Mapping | bool | str)
        return None if is_right else "a JSON schema"
    kind, words = _KINDS.get(name, (bool, "true or false"))
    return None if isinstance(value, kind) else words


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
