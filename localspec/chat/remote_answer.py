"""A message to an answer of a server's: ask, show what comes, keep what was said.

Ctrl-C closes the connection, which ends the reply there. Where the server is lost in the middle of
an answer, what it said until then is kept.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from time import perf_counter
from typing import Any

from localspec.chat.answering import Cancelled, Decide, Shortage, drop_turns, reserve, shortage
from localspec.chat.chat import Chat
from localspec.chat.conversation import Answered
from localspec.chat.figures import DraftSource, Figures
from localspec.chat.frontend import AnswerView
from localspec.chat.remote import ContextError, RemoteModel, body_of
from localspec.dialogue.markers import Kind
from localspec.dialogue.markup import UNOPENED, AnswerPart
from localspec.dialogue.transcript import Answer, messages
from localspec.errors import LocalspecError, UserError

PART_OF: dict[str, Kind] = {
    "content": "text", "reasoning_content": "thought", "reasoning": "thought"
}  # fmt: skip
"""Kinds of parts by the fields that servers send them in."""
ENDINGS = {"stop": "stop", "length": "length", "tool_calls": "stop"}


@dataclass(slots=True)
class RemoteRun:
    """An answer as it comes. Times are seconds of one clock."""

    asked_s: float = field(default_factory=perf_counter)
    first_s: float | None = None
    last_s: float = 0.0
    n_pieces: int = 0
    said: str = ""
    thought: str = ""
    finish_reason: str = "interrupted"
    usage: dict[str, Any] = field(default_factory=dict[str, Any])
    timings: dict[str, Any] = field(default_factory=dict[str, Any])

    def add(self, chunk: dict[str, Any]) -> list[AnswerPart]:
        """Take a chunk; what it adds to the answer."""
        self.usage = _object(chunk, "usage") or self.usage
        self.timings = _object(chunk, "timings") or self.timings
        choices = chunk.get("choices")
        first = choices[0] if isinstance(choices, list) and choices else None
        choice: dict[str, Any] = first if isinstance(first, dict) else {}
        reason = choice.get("finish_reason")
        if reason:
            self.finish_reason = ENDINGS.get(str(reason), "stop")
        parts = list(_parts(_object(choice, "delta")))
        for part in parts:
            self._count(part)
        return parts

    def _count(self, part: AnswerPart) -> None:
        self.last_s = perf_counter()
        self.first_s = self.first_s or self.last_s
        self.n_pieces += 1
        if part.is_thought:
            self.thought += part.text
        else:
            self.said += part.text

    def figures(self, model: RemoteModel, seed: int, paused_s: float) -> Figures:
        """What it came to, by the server's own account; where that is missing, by what came."""
        usage, timings = self.usage, self.timings
        n_tokens = _number(usage, "completion_tokens") or self.n_pieces
        n_prompt = _number(usage, "prompt_tokens")
        n_cached = _number(_object(usage, "prompt_tokens_details"), "cached_tokens") or 0
        passes = _number(timings, "passes") or n_tokens
        drafted = _number(timings, "draft_n") or 0
        accepted = _number(timings, "draft_n_accepted") or 0
        n_context = None if n_prompt is None else n_prompt + n_tokens
        is_full = self.finish_reason == "length" and (n_context or 0) >= (model.n_ctx or inf)
        return Figures(
            n_tokens=n_tokens,
            n_thought=_number(_object(usage, "completion_tokens_details"), "reasoning_tokens") or 0,
            n_prompt=n_prompt,
            n_evaluated=None if n_prompt is None else n_prompt - n_cached,
            n_context=n_context,
            n_ctx=model.n_ctx,
            finish_reason="context" if is_full else self.finish_reason,
            seed=seed,
            ttft_s=None if self.first_s is None else self.first_s - self.asked_s,
            prefill_tps=_rate(timings, "prompt_per_second"),
            decode_tps=_rate(timings, "predicted_per_second") or self._tps(n_tokens, paused_s),
            passes=passes,
            tokens_per_pass=n_tokens / passes if passes else None,
            sources=(DraftSource("drafts", drafted, accepted),) if drafted else (),
        )

    def _tps(self, n_tokens: int, paused_s: float) -> float | None:
        seconds = self.last_s - (self.first_s or self.last_s) - paused_s
        return (n_tokens - 1) / seconds if n_tokens > 1 and seconds > 0 else None


def respond_remotely(chat: Chat, model: RemoteModel, view: AnswerView, decide: Decide) -> Figures:
    """Answer the pending message; old turns go where it does not fit and the user wants that.

    Raises LocalspecError, and Cancelled. What came before an error or Ctrl-C is kept.
    """
    while True:
        try:
            return _answered(chat, model, view)
        except ContextError as error:
            _make_room(chat, error, decide)


def _answered(chat: Chat, model: RemoteModel, view: AnswerView) -> Figures:
    run, options = RemoteRun(), chat.options
    with model.address.asked(body_of(model, options, _messages(chat))) as chunks:
        view.begin(UNOPENED, 0)
        try:
            _show(chunks, run, view)
        except KeyboardInterrupt:
            pass  # its connection is closed, and the server ends the reply
        except LocalspecError as error:
            if not run.said and not run.thought:
                raise
            chat.notify(f"{error}; what was said is kept, /regen asks again")
        finally:
            view.end()
    figures = run.figures(model, options.sampling.seed, view.paused_s)
    model.n_held = figures.n_context or 0
    if run.said or run.thought or run.finish_reason != "interrupted":
        document = figures.to_json()
        answer = Answer(
            run.said, thought=run.thought, finish_reason=figures.finish_reason, figures=document
        )
        chat.add(Answered(answer))
    return figures


def _show(chunks: Iterator[dict[str, Any]], run: RemoteRun, view: AnswerView) -> None:
    for chunk in chunks:
        parts = run.add(chunk)
        if parts:
            view.write(parts, None)
    if run.finish_reason == "interrupted":
        run.finish_reason = "stop"  # some servers do not say why


def _messages(chat: Chat) -> list[dict[str, Any]]:
    conversation = chat.conversation
    said: list[dict[str, Any]] = []
    for message in messages(conversation.system, conversation.seen):
        given: dict[str, Any] = dict(message)
        thought = given.pop("thought", None)
        said.append(given | ({"reasoning_content": thought} if thought else {}))
    return said


def _make_room(chat: Chat, error: ContextError, decide: Decide) -> None:
    """Let old turns go, as the user wants it; else raise what the server said."""
    found, choice = _shortage(chat, error), chat.when_full
    if found is None or not found.can_drop:
        choice = "stop"
    elif choice == "ask":
        choice = decide(found)
    if choice == "cancel":
        raise Cancelled
    if found is None or choice != "drop":
        raise UserError(f"{error}; /clear starts anew, `/full drop` lets old turns go")
    drop_turns(chat, found)


def _shortage(chat: Chat, error: ContextError) -> Shortage | None:
    """Tokens are the server's; a turn has its share of them by its length."""
    sizes, n_ctx = chat.conversation.sizes, error.n_ctx
    if not error.n_prompt or not n_ctx:
        return None
    n_each = error.n_prompt / (sum(sizes) or 1)
    n_reserve = reserve(n_ctx, chat.options.max_tokens)
    return shortage(lambda k: round(n_each * sum(sizes[k:])), sizes, n_ctx, n_reserve)


def _parts(delta: dict[str, Any]) -> Iterator[AnswerPart]:
    for name, kind in PART_OF.items():
        text = delta.get(name)
        if isinstance(text, str) and text:
            yield AnswerPart(text, kind)


def _object(document: dict[str, Any], name: str) -> dict[str, Any]:
    found = document.get(name)
    return found if isinstance(found, dict) else {}


def _number(document: dict[str, Any], name: str) -> int | None:
    found = document.get(name)
    return found if isinstance(found, int) else None


def _rate(document: dict[str, Any], name: str) -> float | None:
    found = document.get(name)
    return float(found) if isinstance(found, int | float) else None
