"""An answer as Anthropic's clients read it: a message of blocks, or the events that make it.

Blocks of thinking, text and tool_use stand in the order in which they came. Thoughts have no
signature.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from localspec.serve.answer import Called, Ended, News, Piece, Run, ServedAnswer
from localspec.serve.problem import Problem
from localspec.serve.protocols import AnswerWriter, event

_CALLER = {"type": "direct"}
_NO_USAGE = {"cache_creation": None, "cache_creation_input_tokens": 0, "inference_geo": None,
             "server_tool_use": None, "service_tier": "standard"}  # fmt: skip
_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
_KINDS = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error",
          405: "invalid_request_error", 413: "request_too_large", 429: "rate_limit_error",
          501: "invalid_request_error", 503: "overloaded_error"}  # fmt: skip


def written(problem: Problem) -> dict[str, Any]:
    """An error as Anthropic's clients read it."""
    kind = _KINDS.get(problem.status, "api_error")
    error = {"type": kind, "message": problem.message}
    return {"type": "error", "error": error, "request_id": None}


class MessageWriter(AnswerWriter):
    """Of /v1/messages."""

    ping = event({"type": "ping"}, "ping")

    def __init__(self, answer: ServedAnswer, model: str) -> None:
        super().__init__(answer, model)
        self._n_blocks = 0
        self._open: str | None = None

    @property
    def document(self) -> dict[str, Any]:
        """All of it."""
        (choice,) = self._answer.choices
        assert choice.end
        blocks = [_block(run, run.text) for run in choice.runs]
        blocks += [_tool_use(call, call.input) for call in choice.calls]
        return {**self._message, "content": blocks, **_stop(choice.end), "usage": self._usage}

    def opening(self) -> Iterator[str]:
        """The message without its blocks. How much of the prompt was held is said at its end."""
        usage = _usage(self._answer.order.n_prompt)
        yield _event("message_start", message={**self._message, "usage": usage})

    def said(self, place: int, news: Sequence[News]) -> Iterator[str]:
        """What is new of it."""
        for each in news:
            if isinstance(each, Piece):
                yield from self._piece(each)
            elif isinstance(each, Called):
                yield from self._closed()
                yield self._begun("tool_use", _tool_use(each, {}))
                yield self._delta(type="input_json_delta", partial_json=each.arguments)
            elif isinstance(each, Ended):
                yield from self._closed()
                yield _event("message_delta", delta=_stop(each), usage=self._usage)

    def closing(self) -> Iterator[str]:
        """The end."""
        yield _event("message_stop")

    def failed(self, problem: Problem) -> str:
        """An error in a stream that has begun."""
        return event(written(problem), "error")

    def _piece(self, piece: Piece) -> Iterator[str]:
        if self._open != piece.kind:
            yield from self._closed()
            yield self._begun(piece.kind, _block(piece, ""))
        if piece.kind == "thought":
            yield self._delta(type="thinking_delta", thinking=piece.text)
        else:
            yield self._delta(type="text_delta", text=piece.text)

    def _begun(self, kind: str, block: dict[str, Any]) -> str:
        self._open = kind
        return _event("content_block_start", index=self._n_blocks, content_block=block)

    def _delta(self, **delta: Any) -> str:
        return _event("content_block_delta", index=self._n_blocks, delta=delta)

    def _closed(self) -> Iterator[str]:
        if self._open is None:
            return
        if self._open == "thought":
            yield self._delta(type="signature_delta", signature="")
        yield _event("content_block_stop", index=self._n_blocks)
        self._open, self._n_blocks = None, self._n_blocks + 1

    @property
    def _message(self) -> dict[str, Any]:
        head = {"id": f"msg_{self._answer.key}", "type": "message", "role": "assistant"}
        rest = {"model": self._model, "content": [], "container": None, "stop_details": None}
        return {**head, **rest, **_stop(None)}

    @property
    def _usage(self) -> dict[str, Any]:
        answer = self._answer
        spoken = (answer.n_tokens, answer.n_thought)
        return _usage(answer.order.n_prompt, answer.n_cached, spoken)


def _block(run: Run | Piece, text: str) -> dict[str, Any]:
    if run.kind == "thought":
        return {"type": "thinking", "thinking": text, "signature": ""}
    return {"type": "text", "text": text, "citations": None}


def _tool_use(call: Called, arguments: Any) -> dict[str, Any]:
    id_ = call.id.replace("call_", "toolu_", 1)
    return {"type": "tool_use", "id": id_, "name": call.name, "input": arguments, "caller": _CALLER}


def _stop(end: Ended | None) -> dict[str, Any]:
    if end is None:
        return {"stop_reason": None, "stop_sequence": None}
    is_sequence = end.stopped_by is not None and end.reason == "stop"
    reason = "stop_sequence" if is_sequence else _REASONS[end.reason]
    return {"stop_reason": reason, "stop_sequence": end.stopped_by if is_sequence else None}


def _usage(n_prompt: int, n_cached: int = 0, spoken: tuple[int, int] = (0, 0)) -> dict[str, Any]:
    """Of a prompt, `input_tokens` were read. `spoken`: all tokens, and those of thoughts."""
    return {
        **_NO_USAGE,
        "input_tokens": n_prompt - n_cached,
        "cache_read_input_tokens": n_cached,
        "output_tokens": spoken[0],
        "output_tokens_details": {"thinking_tokens": spoken[1]},
    }


def _event(kind: str, **said: Any) -> str:
    return event({"type": kind, **said}, kind)
