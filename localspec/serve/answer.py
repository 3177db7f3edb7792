"""Events of replies to OpenAI's documents: whole, or as the chunks of a stream.

`timings` has llama.cpp's names, and `tokens_per_pass`. A stream says each tool call at its end, in
one piece with its index and id, because only then it is known to be one.
"""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from localspec import __version__
from localspec.decode.generation import FinishReason
from localspec.dialogue.markup import AnswerPart
from localspec.serve.messages import Account, Delta, Done
from localspec.serve.order import Order
from localspec.serve.tool_calls import calls_of

_OBJECTS = {"chat": "chat.completion", "completion": "text_completion"}
_IDS = {"chat": "chatcmpl-", "completion": "cmpl-"}
_REASONS: dict[FinishReason | None, str] = {"stop": "stop"}
_NAMES = {"text": "content", "thought": "reasoning_content"}


@dataclass(slots=True)
class _Choice:
    """What was said so far; the text of tool calls waits for its end."""

    said: dict[str, str] = field(default_factory=dict[str, str])
    call: str = ""
    calls: list[dict[str, Any]] | None = None
    account: Account | None = None

    def add(self, parts: Sequence[AnswerPart], *, has_tools: bool) -> list[tuple[str, str]]:
        """Take parts; fields and texts that are to be said now."""
        fresh: list[tuple[str, str]] = []
        for part in parts:
            if part.kind == "tool_call" and has_tools:
                self.call += part.text
                continue
            name = _NAMES.get(part.kind, "content")
            self.said[name] = self.said.get(name, "") + part.text
            fresh.append((name, part.text))
        return fresh

    def end(self, account: Account) -> str:
        """The reply is over; text that turned out to be no call."""
        self.account, self.calls = account, calls_of(self.call) if self.call else None
        text = "" if self.calls else self.call
        self.said["content"] = self.said.get("content", "") + text
        return text

    @property
    def reason(self) -> str:
        if self.calls:
            return "tool_calls"
        return _REASONS.get(self.account and self.account.finish_reason, "length")


class AnswerDocument:
    """The documents of one order, as its events come; `place` is a choice's."""

    def __init__(self, order: Order, model: str) -> None:
        self._order = order
        self._choices = [_Choice() for _ in order.choices]
        self._begun = [False] * len(order.choices)
        self._head = {
            "id": _IDS[order.door] + secrets.token_hex(12),
            "object": _OBJECTS[order.door],
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": f"localspec-{__version__}",
        }

    # whole

    def add(self, place: int, event: Delta | Done) -> None:
        """Take an event, for `document`."""
        if isinstance(event, Delta):
            self._choices[place].add(event.parts, has_tools=self._order.has_tools)
        else:
            self._choices[place].end(event.account)

    @property
    def document(self) -> dict[str, Any]:
        """All of it, when every choice is done."""
        make = self._message_choice if self._order.door == "chat" else self._text_choice
        choices = [make(place, choice) for place, choice in enumerate(self._choices)]
        return {**self._head, "choices": choices, "usage": self.usage, "timings": self.timings}

    def _message_choice(self, place: int, choice: _Choice) -> dict[str, Any]:
        content = choice.said.get("content", "")
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if thought := choice.said.get("reasoning_content"):
            message["reasoning_content"] = thought
        if choice.calls:
            message |= {"content": content or None, "tool_calls": choice.calls}
        return _choice_of(place, choice.reason, message=message)

    def _text_choice(self, place: int, choice: _Choice) -> dict[str, Any]:
        return _choice_of(place, choice.reason, text=choice.said.get("content", ""))

    # streamed

    def chunks(self, place: int, event: Delta | Done) -> list[dict[str, Any]]:
        """What an event adds to the stream."""
        choice, found = self._choices[place], self._opening(place)
        if isinstance(event, Delta):
            fresh = choice.add(event.parts, has_tools=self._order.has_tools)
            return found + [self._said(place, name, text) for name, text in fresh]
        if rest := choice.end(event.account):
            found.append(self._said(place, "content", rest))
        for i, call in enumerate(choice.calls or ()):
            found.append(self._chunk(place, delta={"tool_calls": [{"index": i, **call}]}))
        ending = self._said(place, reason=choice.reason)
        return [*found, {**ending, "timings": _timings([event.account])}]

    @property
    def last_chunks(self) -> list[dict[str, Any]]:
        """Behind all choices: the figures, if they are wanted."""
        if not self._order.wants_usage:
            return []
        return [{**self._chunk_head, "choices": [], "usage": self.usage, "timings": self.timings}]

    def _opening(self, place: int) -> list[dict[str, Any]]:
        if self._begun[place] or self._order.door != "chat":
            return []
        self._begun[place] = True
        return [self._chunk(place, delta={"role": "assistant", "content": None})]

    def _said(
        self, place: int, name: str = "content", text: str = "", reason: str | None = None
    ) -> dict[str, Any]:
        if self._order.door == "chat":
            return self._chunk(place, reason=reason, delta={name: text} if text else {})
        return self._chunk(place, reason=reason, text=text)

    @property
    def _chunk_head(self) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self._order.door == "chat" else "text_completion"
        return {**self._head, "object": kind}

    def _chunk(self, place: int, *, reason: str | None = None, **said: Any) -> dict[str, Any]:
        return {**self._chunk_head, "choices": [_choice_of(place, reason, **said)]}

    # figures

    @property
    def accounts(self) -> list[Account]:
        """Of the choices that are done."""
        return [choice.account for choice in self._choices if choice.account]

    @property
    def usage(self) -> dict[str, Any]:
        """Tokens of all choices; a prompt counts once for all of its choices."""
        accounts = self.accounts
        n_tokens = sum(each.n_tokens for each in accounts)
        n_cached = min(self._order.n_prompt, sum(each.n_cached for each in accounts))
        n_thought = sum(each.n_thought for each in accounts)
        return {
            "prompt_tokens": self._order.n_prompt,
            "completion_tokens": n_tokens,
            "total_tokens": self._order.n_prompt + n_tokens,
            "prompt_tokens_details": {"cached_tokens": n_cached},
            "completion_tokens_details": {"reasoning_tokens": n_thought},
        }

    @property
    def timings(self) -> dict[str, Any]:
        """Of all choices together."""
        return _timings(self.accounts)


def _choice_of(place: int, reason: str | None, **said: Any) -> dict[str, Any]:
    return {"index": place, **said, "logprobs": None, "finish_reason": reason}


def _timings(accounts: Sequence[Account]) -> dict[str, Any]:
    timings, stats = [a.timings for a in accounts], [a.stats for a in accounts]
    n_read = sum(each.n_prefilled for each in timings)
    read_s = sum(each.prefill_s or 0.0 for each in timings)
    n_said = sum(each.n_tokens for each in accounts)
    n_later = sum(each.n_tokens - each.n_first for each in timings)
    said_s = sum(each.decode_s or 0.0 for each in timings)
    passes = sum(each.passes for each in stats)
    return {
        "cache_n": sum(each.n_cached for each in accounts),
        "prompt_n": n_read,
        "prompt_ms": 1e3 * read_s,
        "prompt_per_second": n_read / read_s if read_s else None,
        "predicted_n": n_said,
        "predicted_ms": 1e3 * said_s,
        "predicted_per_second": n_later / said_s if said_s else None,
        "draft_n": sum(each.drafted for each in stats),
        "draft_n_accepted": sum(each.accepted for each in stats),
        "passes": passes,
        "tokens_per_pass": n_said / passes if passes else None,
        "queued_ms": 1e3 * sum(each.queued_s for each in accounts),
    }
