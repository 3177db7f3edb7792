"""A message to an answer: make room, generate, show, keep. The view never decides what is said.

How long an answer gets is not known, so a share of the context is kept free for it. After turns are
dropped the model reads what is left again, so turns go seldom and in bulk: down to half of the
context. The system prompt and the newest message always stay.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from localspec.chat.chat import Chat
from localspec.chat.conversation import Answered, Dropped
from localspec.chat.figures import AnswerRun, Figures
from localspec.chat.frontend import AnswerView
from localspec.chat.loading import LoadedModel
from localspec.dialogue.transcript import Answer, Turn
from localspec.errors import UserError
from localspec.format import count
from localspec.session.reply_options import ReplyOptions

MAX_RESERVE = 512
SHARE_RESERVED = 4
SHARE_KEPT = 2


@dataclass(frozen=True, slots=True)
class Shortage:
    """A prompt that leaves too few of `n_ctx` tokens for an answer.

    Without `n_droppable` turns it would have `n_after` tokens.
    """

    n_prompt: int
    n_ctx: int
    n_droppable: int
    n_after: int

    @property
    def n_left(self) -> int:
        """Tokens that an answer could still have."""
        return self.n_ctx - self.n_prompt

    @property
    def can_drop(self) -> bool:
        return self.n_droppable > 0 and self.n_after < self.n_ctx

    def refusal(self) -> UserError:
        """Why nothing can be answered."""
        return UserError(
            f"the conversation has {self.n_prompt:,} tokens and the context holds {self.n_ctx:,}:"
            " /undo or /clear, `/full drop` to let old turns go, or a larger --ctx"
        )


def reserve(n_ctx: int, max_tokens: int | None) -> int:
    """Tokens to keep free for an answer."""
    usual = min(MAX_RESERVE, n_ctx // SHARE_RESERVED)
    return usual if max_tokens is None else min(usual, max_tokens)


def shortage(
    count: Callable[[int], int], sizes: Sequence[int], n_ctx: int, n_reserve: int
) -> Shortage | None:
    """None where there is room. `count(k)`: tokens of the prompt without its first `k` turns.

    `sizes`: of the turns, in any unit. They say where to look, since to count takes a rendering.
    """
    n_prompt = count(0)
    if n_prompt + n_reserve <= n_ctx:
        return None
    target = min(n_ctx // SHARE_KEPT, n_ctx - n_reserve)
    left = [sum(sizes[k:]) / (sum(sizes) or 1) for k in range(len(sizes))]
    guess = next((k for k, share in enumerate(left) if share * n_prompt <= target), len(sizes))
    n_droppable = fewest(lambda k: count(k) <= target, len(sizes) - 1, guess)
    return Shortage(n_prompt, n_ctx, n_droppable, count(n_droppable))


def fewest(is_enough: Callable[[int], bool], most: int, guess: int) -> int:
    """The smallest number that is enough, or `most`; it is looked for in growing steps."""
    too_few, enough, step = -1, most, 1
    while enough - too_few > 1:
        k = max(too_few + 1, min(guess, enough - 1))
        if is_enough(k):
            enough, guess = k, k - step
        else:
            too_few, guess = k, k + step
        step *= 2
    return enough


RoomDecision = Literal["drop", "stop", "cancel"]
Decide = Callable[[Shortage], RoomDecision]


class Cancelled(Exception):
    """The user withdraws the message."""


def respond(chat: Chat, loaded: LoadedModel, view: AnswerView, decide: Decide) -> AnswerRun:
    """Answer the pending message.

    Raises UserError where it does not fit and nothing may go, and Cancelled. What came before an
    error or Ctrl-C is kept.
    """
    loaded.settle()
    loaded.transcript.use(loaded.session.prompts_for(chat.options, chat.conversation.date))
    turns = _make_room(chat, loaded, decide)
    prompt = loaded.transcript.prompt(chat.conversation.system, turns)
    opening = loaded.transcript.opening(chat.conversation.system, turns)
    parser = loaded.session.parser(chat.options, loaded.session.markup, opening)
    run = AnswerRun(chat.options.sampling.seed, parser)
    view.begin(opening, len(prompt))
    with _kept(chat, loaded, view, run):
        _generate(loaded, prompt, chat.options, view, run)
        while run.finish_reason == "context" and chat.when_full == "drop":
            longer, most = _without_old_turns(chat, loaded, run), chat.options.max_tokens
            n_left = most and max(0, most - len(run.tokens))
            if longer is None or n_left == 0:
                break
            _generate(loaded, longer, replace(chat.options, max_tokens=n_left), view, run)
    return run


@contextmanager
def _kept(chat: Chat, loaded: LoadedModel, view: AnswerView, run: AnswerRun) -> Generator[None]:
    """Whatever happens, what was said becomes part of the conversation."""
    try:
        yield
    except KeyboardInterrupt:
        run.was_left = True
    finally:
        view.end()
        run.paused_s = view.paused_s
        if run.said or run.thought or run.finish_reason != "interrupted":
            answer = Answer(
                text=run.said,
                thought=run.thought,
                tokens=() if run.parser.is_stopped else tuple(run.tokens),
                tokenizer=loaded.transcript.tokenizer,
                finish_reason=run.finish_reason,
                figures=Figures.of(run, loaded).to_json(),
            )
            chat.add(Answered(answer))


def _generate(
    loaded: LoadedModel, prompt: list[int], options: ReplyOptions, view: AnswerView, run: AnswerRun
) -> None:
    reply = loaded.session.reply(prompt, options, parser=run.parser)
    run.replies.append(reply)
    n_steps = 0
    for parts in reply.by_step():
        step = reply.steps[-1] if len(reply.steps) > n_steps else None
        n_steps = len(reply.steps)
        view.write(parts, step)


def _make_room(chat: Chat, loaded: LoadedModel, decide: Decide) -> tuple[Turn, ...]:
    """The turns that the model is to see; old ones go if the user wants that."""
    found = _shortage(chat, loaded, 0)
    if found is None:
        return chat.conversation.seen
    choice = chat.when_full if chat.when_full != "ask" else decide(found)
    if choice == "cancel":
        raise Cancelled
    if choice == "drop" and found.can_drop:
        drop_turns(chat, found)
    elif found.n_left < 1:
        raise found.refusal()
    else:
        chat.notify(
            f"the context is nearly full: the answer stops after {found.n_left:,} tokens;"
            " /clear starts anew, `/full drop` lets old turns go"
        )
    return chat.conversation.seen


def drop_turns(chat: Chat, found: Shortage) -> None:
    """Hide the oldest turns from the model, and say so."""
    chat.add(Dropped(found.n_droppable))
    chat.notify(
        f"the model no longer sees the oldest {count(found.n_droppable, 'turn')}"
        f" ({found.n_prompt - found.n_after:,} tokens); they stay in the saved conversation"
    )


def _shortage(chat: Chat, loaded: LoadedModel, n_answered: int) -> Shortage | None:
    conversation, seen = chat.conversation, chat.conversation.seen
    n_ctx = loaded.session.n_ctx
    n_reserve = reserve(n_ctx, chat.options.max_tokens) if n_answered == 0 else n_ctx // 8

    def n_without(k: int) -> int:
        return len(loaded.transcript.prompt(conversation.system, seen[k:])) + n_answered

    return shortage(n_without, conversation.sizes, n_ctx, n_reserve)


def _without_old_turns(chat: Chat, loaded: LoadedModel, run: AnswerRun) -> list[int] | None:
    """The prompt to go on from in the middle of an answer; None where nothing can go."""
    found = _shortage(chat, loaded, len(run.tokens))
    if found is None or not found.can_drop:
        return None
    drop_turns(chat, found)
    prompt = loaded.transcript.prompt(chat.conversation.system, chat.conversation.seen)
    return [*prompt, *run.tokens]
