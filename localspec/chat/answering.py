"""A message to an answer: make room, generate, show, keep. The view never decides what is said."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal, Protocol

from localspec.chat.answer_run import AnswerRun, Shortage, reserve, shortage
from localspec.chat.chat import Chat
from localspec.chat.conversation import Answered, Dropped
from localspec.chat.figures import Figures
from localspec.chat.models import LoadedModel
from localspec.decode.step import Step
from localspec.dialogue.transcript import Answer, Turn
from localspec.session import ReplyOptions

RoomDecision = Literal["drop", "stop", "cancel"]
Decide = Callable[[Shortage], RoomDecision]


class AnswerView(Protocol):
    """Where an answer appears while it comes; `thought` collects its reasoning, `paused_s` what
    went by while the program was suspended."""

    @property
    def thought(self) -> str: ...

    @property
    def paused_s(self) -> float: ...

    def begin(self, *, in_thought: bool, n_prompt: int) -> None:
        """An answer to a prompt of so many tokens is coming; in thought: its first text is
        reasoning already."""
        ...

    def write(self, text: str, step: Step | None) -> None:
        """More text, of one step; None for what was held back at the end."""
        ...

    def end(self) -> None:
        """That was all of it."""
        ...


class Cancelled(Exception):
    """The user would rather not ask now."""


def respond(
    chat: Chat, opened: LoadedModel, view: AnswerView, decide: Decide, notify: Callable[[str], None]
) -> AnswerRun:
    """Answer the pending message.

    Raises UserError where it does not fit and nothing may go, Cancelled if the user says so. What
    came before an error or Ctrl-C is kept.
    """
    opened.states.settle()
    turns = _make_room(chat, opened, decide, notify)
    prompt = opened.transcript.prompt(chat.conversation.system, turns)
    exchange = AnswerRun(chat.options.sampling.seed)
    in_thought = opened.transcript.opens_thought(chat.conversation.system, turns)
    view.begin(in_thought=in_thought, n_prompt=len(prompt))
    with _kept(chat, opened, view, exchange):
        _generate(opened, prompt, chat.options, view, exchange)
        while exchange.finish_reason == "context" and chat.when_full == "drop":
            longer = _without_old_turns(chat, opened, exchange, notify)
            options = _what_is_left(chat.options, exchange)
            if longer is None or options.max_tokens == 0:
                break
            _generate(opened, longer, options, view, exchange)
    return exchange


@contextmanager
def _kept(
    chat: Chat, opened: LoadedModel, view: AnswerView, exchange: AnswerRun
) -> Generator[None]:
    """Whatever happens, what was said becomes part of the conversation."""
    try:
        yield
    except KeyboardInterrupt:
        exchange.was_left = True
    finally:
        view.end()
        exchange.paused_s = view.paused_s
        if exchange.text or exchange.finish_reason != "interrupted":
            transcript = opened.transcript
            answer = Answer(
                text=exchange.text,
                tokens=transcript.emitted(exchange.text, exchange.tokens),
                tokenizer=transcript.tokenizer,
                finish_reason=exchange.finish_reason,
                figures=Figures.of(exchange, opened).to_json(),
            )
            chat.add(Answered(answer))


def _generate(
    opened: LoadedModel,
    prompt: list[int],
    options: ReplyOptions,
    view: AnswerView,
    exchange: AnswerRun,
) -> None:
    reply = opened.session.reply(prompt, options)
    exchange.replies.append(reply)
    n_steps = 0
    for text in reply.by_step():
        step = reply.steps[-1] if len(reply.steps) > n_steps else None
        n_steps = len(reply.steps)
        view.write(text, step)


def _make_room(
    chat: Chat, opened: LoadedModel, decide: Decide, notify: Callable[[str], None]
) -> tuple[Turn, ...]:
    """The turns that the model is to see; old ones go if the user wants that."""
    found = _shortage(chat, opened, 0)
    if found is None:
        return chat.conversation.seen
    choice = chat.when_full if chat.when_full != "ask" else decide(found)
    if choice == "cancel":
        raise Cancelled
    if choice == "drop" and found.can_drop:
        _drop(chat, found, notify)
    elif found.n_left < 1:
        raise found.refusal()
    else:
        notify(
            f"the context is nearly full: the answer stops after {found.n_left:,} tokens;"
            " /clear starts anew, `/full drop` lets old turns go"
        )
    return chat.conversation.seen


def _drop(chat: Chat, found: Shortage, notify: Callable[[str], None]) -> None:
    chat.add(Dropped(found.n_droppable))
    n = found.n_droppable
    notify(
        f"the model no longer sees the oldest {n} turn{'s' * (n != 1)}"
        f" ({found.n_prompt - found.n_after:,} tokens); they stay in the saved conversation"
    )


def _shortage(chat: Chat, opened: LoadedModel, n_answered: int) -> Shortage | None:
    conversation, seen = chat.conversation, chat.conversation.seen
    n_ctx = opened.session.n_ctx
    n_reserve = reserve(n_ctx, chat.options.max_tokens) if n_answered == 0 else n_ctx // 8

    def count(k: int) -> int:
        return len(opened.transcript.prompt(conversation.system, seen[k:])) + n_answered

    return shortage(count, len(seen), n_ctx, n_reserve)


def _without_old_turns(
    chat: Chat, opened: LoadedModel, exchange: AnswerRun, notify: Callable[[str], None]
) -> list[int] | None:
    """The prompt to go on from in the middle of an answer; None where nothing can go."""
    found = _shortage(chat, opened, len(exchange.tokens))
    if found is None or not found.can_drop:
        return None
    _drop(chat, found, notify)
    prompt = opened.transcript.prompt(chat.conversation.system, chat.conversation.seen)
    return [*prompt, *exchange.tokens]


def _what_is_left(options: ReplyOptions, exchange: AnswerRun) -> ReplyOptions:
    if options.max_tokens is None:
        return options
    return replace(options, max_tokens=max(0, options.max_tokens - len(exchange.tokens)))
