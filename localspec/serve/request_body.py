"""A request's body, and its fields: what is read, what changes nothing here, what is refused.

Nothing is ignored silently: a field that would change the answer and cannot is an error, unless it
has the value that changes nothing. A body has a limit, and nothing in it that no answer could
repeat.
"""

import json
from collections.abc import Container, Mapping
from math import isfinite
from typing import Any, TypeGuard

from starlette.requests import Request

from localspec.errors import LocalspecError, UserError, no_such
from localspec.sampling_fields import SAMPLING
from localspec.serve.messages import Wishes
from localspec.serve.problem import BadRequestError, Problem, refused
from localspec.session.reply_options import ReplyKeywords, ReplyOptions, reply_options, wanted_of

_SAMPLING = {
    **{name: row.name for row in SAMPLING.values() for name in (row.name, *row.also)},
    "seed": "seed", "stop": "stop", "ignore_eos": "ignore_eos", "min_tokens": "min_tokens",
    "logit_bias": "logit_bias",
}  # fmt: skip
"""Fields of requests by the keyword of a reply."""
_TOOLS = ("tools", "tool_choice", "parallel_tool_calls")
_LENGTHS = ("max_completion_tokens", "max_tokens", "n_predict")
_GRAMMARS = {"json_schema": "schema", "grammar": "grammar", "regex": "regex",
             "guided_json": "schema", "guided_grammar": "grammar",
             "guided_regex": "regex"}  # fmt: skip
"""llama.cpp's and vLLM's fields by the keyword of a reply."""
_READ = {*_SAMPLING, *_LENGTHS, *_GRAMMARS, "model", "stream", "stream_options", "n",
         "response_format", "logprobs", "n_probs", "cache_prompt", "timings_per_token",
         "return_progress", "id_slot", "post_sampling_probs", "verbose"}  # fmt: skip
CHAT = frozenset({*_READ, *_TOOLS, "messages", "reasoning_effort",
                  "chat_template_kwargs", "top_logprobs", "continue_final_message",
                  "add_generation_prompt"})  # fmt: skip
COMPLETION = frozenset({*_READ, "prompt", "suffix", "echo"})
NATIVE = frozenset({*COMPLETION, "return_tokens", "response_fields"})
"""Of llama.cpp's /completion."""
INFILL = frozenset({*NATIVE, "input_prefix", "input_suffix", "input_extra"}) - {"suffix", "echo"}
HARMLESS = frozenset({
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
    "prompt_cache_retention", "verbosity", "backend_sampling",
})  # fmt: skip
"""They say who asks and why, or how a service is to be run."""
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "top_logprobs": (0,), "best_of": (1,),
    "modalities": (["text"],), "typical_p": (1,),
    "functions": ([],), "function_call": ("none", "auto"),
    "reasoning_format": ("auto", "deepseek"),
    "mirostat": (0,), "dynatemp_range": (0,), "dry_multiplier": (0,), "xtc_probability": (0,),
    "top_n_sigma": (-1,), "n_keep": (0,), "n_indent": (0,), "t_max_predict_ms": (0, -1),
    "min_keep": (0,), "lora": ([],), "samplers": ([],), "n_discard": (0,),
}  # fmt: skip
"""Fields that are not supported yet, and the values with which they ask for nothing."""
NO_SHIFT = "a full context ends the reply, and nothing of it is dropped to go on"
_WHY = {"n_keep": f": {NO_SHIFT}", "n_discard": f": {NO_SHIFT}"}
_STREAMING = ("include_usage", "include_obfuscation")
"""The latter pads events against listeners, which changes nothing of what they say."""
MOST_CHOICES = 16
_EFFORTS = {"none": "off", "minimal": "low", "low": "low", "medium": "medium", "high": "high",
            "xhigh": "high", "max": "high", "on": "on"}  # fmt: skip


def checked(body: Any, known: frozenset[str]) -> dict[str, Any]:
    """The fields that say something. BadRequestError for one that cannot be kept."""
    given = fields_of(body)
    for name, value in given.items():
        if name in known or name in HARMLESS:
            continue
        if name not in NEUTRAL:
            raise refused(str(no_such("field", name, known)), name)
        if not any(value == neutral for neutral in NEUTRAL[name]):
            raise refused(f"{name} is not supported{_WHY.get(name, ': leave it out')}", name)
    return given


def fields_of(body: Any) -> dict[str, Any]:
    """Those of a body that say anything. BadRequestError for what is no object."""
    if not isinstance(body, Mapping):
        raise refused("the body is no JSON object: send one")
    return {str(name): value for name, value in body.items() if value is not None}


def check_defaults(defaults: Mapping[str, Any]) -> None:
    """UserError for what no request may say."""
    given = checked(defaults, CHAT | INFILL)
    options_of(given, "auto")
    variables_of(given)
    wishes_of(given)
    number_of_choices(given)


def with_defaults(
    given: Mapping[str, Any], defaults: Mapping[str, Any], known: frozenset[str]
) -> dict[str, Any]:
    """Fields with the server's own values where they are not given. A length has three names."""
    has_length = any(name in given for name in _LENGTHS)
    kept = {name: value for name, value in defaults.items() if name in known}
    if has_length:
        kept = {name: value for name, value in kept.items() if name not in _LENGTHS}
    return {**kept, **given}


def options_of(given: Mapping[str, Any], verify: Any) -> ReplyOptions:
    """How a reply is made. BadRequestError names the wrong field."""
    keywords: dict[str, Any] = {"verify": verify}
    for name, keyword in _SAMPLING.items():
        if name in given:
            keywords[keyword] = given[name]
    keywords |= {name: given[name] for name in _TOOLS if name in given}
    lengths = [given[name] for name in _LENGTHS if name in given]
    if lengths and lengths[0] != -1:  # llama.cpp's for no limit
        keywords["max_tokens"] = lengths[0]
    if given.get("top_k") == -1:
        keywords["top_k"] = 0
    if given.get("seed") == -1:  # llama.cpp's for any
        del keywords["seed"]
    keywords["logprobs"] = logprobs_of(given)
    keywords["drawn_logprobs"] = flag(given, "post_sampling_probs")
    effort = given.get("reasoning_effort")
    if effort is not None:
        if not among(effort, _EFFORTS):
            wanted = ", ".join(_EFFORTS)
            raise refused(f"reasoning_effort {effort!r} is not one of {wanted}", "reasoning_effort")
        keywords["think"] = _EFFORTS[effort]
    keywords |= {key: given[name] for name, key in _GRAMMARS.items() if name in given}
    return _made(keywords | _format(given))


def logprobs_of(given: Mapping[str, Any]) -> int | None:
    """For how many likely tokens at each place: chat's true with `top_logprobs`, a completion's
    number, or llama.cpp's `n_probs`; None for none."""
    asked, top = given.get("logprobs"), given.get("top_logprobs")
    if isinstance(asked, bool):
        if top and not asked:
            raise refused("top_logprobs needs logprobs: send it as true", "top_logprobs")
        asked = (top or 0) if asked else None
    elif top:
        raise refused("top_logprobs needs logprobs: send it as true", "top_logprobs")
    found = given.get("n_probs") or None if asked is None else asked
    wanted = None if found is None else wanted_of("logprobs", found)
    if wanted:
        name = "n_probs" if asked is None else "top_logprobs" if top else "logprobs"
        raise refused(f"{name} {found!r} is not {wanted}", name)
    if found is not None and flag(given, "echo"):
        raise refused("echo has no logprobs: those of a prompt are not known here", "echo")
    return found


def _format(given: Mapping[str, Any]) -> dict[str, Any]:
    """`response_format` as a keyword of a reply: OpenAI's, and llama.cpp's with a schema in it."""
    asked = given.get("response_format", {"type": "text"})
    kind = asked.get("type") if isinstance(asked, Mapping) else None
    if kind == "text":
        return {}
    if kind == "json_object":
        return {"schema": asked.get("schema", {"type": "object"})}
    if kind != "json_schema":
        raise refused(
            f"response_format {asked!r} is none of the types text, json_object and json_schema",
            "response_format",
        )
    inner = asked.get("json_schema", asked)
    if not isinstance(inner, Mapping) or "schema" not in inner:
        raise refused("response_format json_schema has no schema", "response_format")
    return {"schema": inner["schema"]}


def _made(keywords: dict[str, Any]) -> ReplyOptions:
    try:
        return reply_options(**ReplyKeywords(**keywords))
    except UserError as error:
        raise refused(str(error), str(error).partition(" ")[0]) from error


def flag(given: Mapping[str, Any], name: str, *, default: bool = False) -> bool:
    """A field that is true or false."""
    value = given.get(name, default)
    if not isinstance(value, bool):
        raise refused(f"{name} {value!r} is neither true nor false", name)
    return value


def wishes_of(given: Mapping[str, Any]) -> Wishes:
    """llama.cpp's `return_progress`, `timings_per_token`, `cache_prompt` and `id_slot`."""
    slot = given.get("id_slot", -1)
    if not isinstance(slot, int) or isinstance(slot, bool) or slot < -1:
        raise refused(f"id_slot {slot!r} is no number of a slot, nor -1 for any", "id_slot")
    return Wishes(
        progress=flag(given, "return_progress"),
        accounts=flag(given, "timings_per_token"),
        reuses=flag(given, "cache_prompt", default=True),
        goes_on=flag(given, "stream"),
        slot=None if slot == -1 else slot,
    )


def number_of_choices(given: Mapping[str, Any]) -> int:
    """`n`, from 1 on."""
    n = given.get("n", 1)
    if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= MOST_CHOICES:
        raise refused(f"n {n!r} is no number from 1 to {MOST_CHOICES}", "n")
    return n


def wants_usage(given: Mapping[str, Any]) -> bool:
    """Whether a stream ends with the figures: `stream_options.include_usage`."""
    options = given.get("stream_options", {})
    if not isinstance(options, Mapping):
        raise refused(f"stream_options {options!r} is no object", "stream_options")
    for name, value in options.items():
        if value and name not in _STREAMING:
            raise refused(
                str(no_such("field of stream_options", name, _STREAMING)), "stream_options"
            )
    return flag(options, "include_usage")


def variables_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """`chat_template_kwargs`."""
    values = given.get("chat_template_kwargs", {})
    if not isinstance(values, Mapping):
        raise refused(f"chat_template_kwargs {values!r} is no object", "chat_template_kwargs")
    return {str(name): value for name, value in values.items()}


MOST_BYTES = 32 << 20
"""Of a body."""
PLAIN = "identity"
"""HTTP's name for a body that is not packed."""


async def body_of(request: Request, most_bytes: int) -> Any:
    """The JSON of a body. BadRequestError for one that is none, or too long.

    Python also reads numbers that JSON does not have, and halves of characters, which no answer
    could repeat.
    """
    data = await _data_of(request, most_bytes)
    try:
        body = json.loads(data, parse_float=_finite, parse_constant=_finite)
        if b"\\ud" in data or b"\\uD" in data:
            json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise refused("the body has half a character, as \\ud800 is, which is no UTF-8") from error
    except RecursionError as error:
        raise refused("the body is no JSON: it is nested too deep") from error
    except ValueError as error:
        reason = str(error).partition("; use sys.")[0]  # a number of too many digits
        raise refused(f"the body is no JSON: {reason}") from error
    return body


async def _data_of(request: Request, most_bytes: int) -> bytearray:
    """All bytes of a body. BadRequestError where there are none, too many, or packed ones."""
    coding = request.headers.get("content-encoding", PLAIN)
    if coding.lower() != PLAIN:
        sentence = f"the body comes as {coding}: send it without a Content-Encoding"
        raise BadRequestError(Problem(415, sentence))
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > most_bytes:
        raise _too_long(most_bytes)  # before it comes
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > most_bytes:
            raise _too_long(most_bytes)
    if not data:
        raise refused(f"there is no body: send a JSON object{_upgrading(request)}")
    return data


def _upgrading(request: Request) -> str:
    """Why a body may be lost: behind such a question another protocol is expected."""
    wanted = request.headers.get("upgrade")
    return f", and do not ask for an upgrade to {wanted}: speak HTTP/1.1" if wanted else ""


def among(value: Any, names: Container[str]) -> TypeGuard[str]:
    """Whether something in a body, which can be of any type, is one of some names."""
    return isinstance(value, str) and value in names


def _finite(written: str) -> float:
    number = float(written)
    if not isfinite(number):
        raise ValueError(f"{written} is no number that it can have")
    return number


def _too_long(most_bytes: int) -> LocalspecError:
    return BadRequestError(Problem(413, f"the body is longer than {most_bytes:,} bytes"))
