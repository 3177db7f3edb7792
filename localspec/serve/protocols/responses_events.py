"""An answer as OpenAI's responses have it: items, or the events that make them, numbered in order.

A thought is an item of type reasoning: its content, or its summary where one is asked for. Each
item is done before the next one is added.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from localspec.serve.answer import (
    Called,
    Ended,
    News,
    Piece,
    ServedAnswer,
    progress_of,
    timings_of,
)
from localspec.serve.messages import Progress
from localspec.serve.problem import Problem
from localspec.serve.protocols import AnswerWriter, event

_REPEATED = {
    "instructions": None, "max_output_tokens": None, "metadata": {}, "parallel_tool_calls": True,
    "tool_choice": "auto", "tools": [], "safety_identifier": None, "prompt_cache_key": None,
    "user": None, "presence_penalty": 0.0, "frequency_penalty": 0.0, "top_logprobs": 0,
}  # fmt: skip
"""Fields of a request that its response has, too, and what they are where it says nothing."""
_FIXED = {
    "previous_response_id": None, "truncation": "disabled", "store": False, "background": False,
    "service_tier": "default", "max_tool_calls": None,
}  # fmt: skip
_EMPTY_TOOL = {"description": None, "parameters": None, "strict": None}
"""Fields that a tool of a response has in any case."""
_EMPTY_FORMAT = {"format": {"type": "text"}}


@dataclass(slots=True)
class _Item:
    """The item that is being said."""

    kind: str
    id: str
    place: int
    text: str = ""


class ResponseWriter(AnswerWriter):
    """Of /v1/responses."""

    def __init__(self, answer: ServedAnswer, model: str) -> None:
        super().__init__(answer, model)
        self._asked: Mapping[str, Any] = answer.order.given
        reasoning = self._asked.get("reasoning") or {}
        self._summarises = bool(reasoning.get("summary"))
        self._n_events = 0
        self._done: list[dict[str, Any]] = []
        self._item: _Item | None = None

    @property
    def document(self) -> dict[str, Any]:
        """All of it."""
        (choice,) = self._answer.choices
        items = [self._whole(self._new(run.kind, i), run.text) for i, run in enumerate(choice.runs)]
        items += [self._call(each, len(items) + i) for i, each in enumerate(choice.calls)]
        return self._ended(choice.end, items)

    def opening(self) -> Iterator[str]:
        """The response without its items."""
        for kind in ("created", "in_progress"):
            yield self._event(f"response.{kind}", response=self._response("in_progress"))

    def said(self, place: int, news: Sequence[News]) -> Iterator[str]:
        """What is new of it."""
        for each in news:
            if isinstance(each, Piece):
                yield from self._piece(each)
            elif isinstance(each, Called):
                yield from self._closed()
                yield from self._called(each)
            elif isinstance(each, Progress):
                more = {"prompt_progress": progress_of(each)}
                response = self._response("in_progress")
                yield self._event("response.in_progress", response=response, **more)
            else:
                yield from self._closed()
                response = self._ended(each, self._done)
                more = {"timings": self._answer.timings}
                yield self._event(f"response.{response['status']}", response=response, **more)

    def closing(self) -> Iterator[str]:
        """The end of the stream."""
        yield "data: [DONE]\n\n"

    def failed(self, problem: Problem) -> str:
        """An error in a stream that has begun."""
        error = {"code": problem.code or problem.kind, "message": problem.message}
        response = {**self._response("failed", self._done), "error": error}
        return self._event("response.failed", response=response)

    # items

    def _piece(self, piece: Piece) -> Iterator[str]:
        if self._item is None or self._item.kind != piece.kind:
            yield from self._closed()
            yield from self._begun(piece.kind)
        assert self._item
        self._item.text += piece.text
        more = {"timings": timings_of([piece.account])} if piece.account else {}
        yield self._of_item("delta", delta=piece.text, **more)

    def _begun(self, kind: str) -> Iterator[str]:
        self._item = item = self._new(kind, len(self._done))
        whole = {**self._whole(item, ""), "status": "in_progress"}
        empty = {name: [] if isinstance(value, list) else value for name, value in whole.items()}
        yield self._event("response.output_item.added", output_index=item.place, item=empty)
        yield self._of_part("added")

    def _closed(self) -> Iterator[str]:
        item = self._item
        if item is None:
            return
        yield self._of_item("done", text=item.text)
        yield self._of_part("done")
        yield from self._finished(self._whole(item, item.text))
        self._item = None

    def _called(self, call: Called) -> Iterator[str]:
        place = len(self._done)
        item = self._call(call, place)
        begun = {**item, "arguments": "", "status": "in_progress"}
        yield self._event("response.output_item.added", output_index=place, item=begun)
        head = {"item_id": item["id"], "output_index": place}
        kind = "response.function_call_arguments"
        yield self._event(f"{kind}.delta", **head, delta=call.arguments)
        named = {"name": call.name, "arguments": call.arguments}
        yield self._event(f"{kind}.done", **head, **named)
        yield from self._finished(item)

    def _finished(self, item: dict[str, Any]) -> Iterator[str]:
        yield self._event("response.output_item.done", output_index=len(self._done), item=item)
        self._done.append(item)

    def _new(self, kind: str, place: int) -> _Item:
        prefix = "rs" if kind == "thought" else "msg"
        return _Item(kind, f"{prefix}_{self._answer.key}{place}", place)

    def _whole(self, item: _Item, text: str) -> dict[str, Any]:
        if item.kind == "text":
            head = {"id": item.id, "type": "message", "status": "completed", "role": "assistant"}
            return {**head, "content": [_text_part(text)]}
        head = {"id": item.id, "type": "reasoning", "status": "completed"}
        if self._summarises:
            return {**head, "summary": [{"type": "summary_text", "text": text}], "content": []}
        return {**head, "summary": [], "content": [{"type": "reasoning_text", "text": text}]}

    def _call(self, call: Called, place: int) -> dict[str, Any]:
        head = {"id": f"fc_{self._answer.key}{place}", "type": "function_call"}
        said = {"call_id": call.id, "name": call.name, "arguments": call.arguments}
        return {**head, **said, "status": "completed"}

    # events

    def _of_item(self, what: str, **said: Any) -> str:
        """A delta of the item's text, or all of it."""
        assert self._item
        if self._item.kind == "text":
            return self._located(f"response.output_text.{what}", **said, logprobs=[])
        name = "reasoning_summary_text" if self._summarises else "reasoning_text"
        return self._located(f"response.{name}.{what}", **said)

    def _of_part(self, what: str) -> str:
        assert self._item
        if self._item.kind == "text":
            part = _text_part(self._item.text)
            return self._located(f"response.content_part.{what}", part=part)
        if self._summarises:
            part = {"type": "summary_text", "text": self._item.text}
            return self._located(f"response.reasoning_summary_part.{what}", part=part)
        part = {"type": "reasoning_text", "text": self._item.text}
        return self._located(f"response.content_part.{what}", part=part)

    def _located(self, kind: str, **said: Any) -> str:
        """An event about the item's only part."""
        assert self._item
        index = "summary_index" if "summary" in kind else "content_index"
        place = {"item_id": self._item.id, "output_index": self._item.place, index: 0}
        return self._event(kind, **place, **said)

    def _event(self, kind: str, **said: Any) -> str:
        number = self._n_events
        self._n_events += 1
        return event({"type": kind, "sequence_number": number, **said}, kind)

    # the response

    def _ended(self, end: Ended | None, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        is_cut = end is None or end.reason == "length"
        reason = {"reason": "max_output_tokens"} if is_cut else None
        response = self._response("incomplete" if is_cut else "completed", items)
        done = {"completed_at": None if is_cut else int(time.time()), "usage": self._usage}
        return {**response, **done, "incomplete_details": reason}

    def _response(self, status: str, items: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
        asked, options = self._asked, self._answer.order.choices[0].options
        given = {name: asked.get(name) for name in _REPEATED}
        repeated = {n: _REPEATED[n] if value is None else value for n, value in given.items()}
        tools = [{**_EMPTY_TOOL, **tool} for tool in asked.get("tools") or ()]
        reasoning = asked.get("reasoning") or {}
        return {
            "id": f"resp_{self._answer.key}",
            "object": "response",
            "created_at": self._answer.created,
            "completed_at": None,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "model": self._model,
            "output": list(items),
            "temperature": options.sampling.temperature,
            "top_p": options.sampling.top_p,
            "text": _EMPTY_FORMAT | (asked.get("text") or {}),
            "reasoning": {name: reasoning.get(name) for name in ("effort", "summary")},
            "usage": None,
            **repeated,
            "tools": tools,
            **_FIXED,
        }

    @property
    def _usage(self) -> dict[str, Any]:
        answer = self._answer
        n_prompt, n_tokens = answer.order.n_prompt, answer.n_tokens
        return {
            "input_tokens": n_prompt,
            "input_tokens_details": {"cached_tokens": answer.n_cached},
            "output_tokens": n_tokens,
            "output_tokens_details": {"reasoning_tokens": answer.n_thought},
            "total_tokens": n_prompt + n_tokens,
        }


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
