"""Where a prompt parts from the conversation's next one.

A template ends a prompt with what asks for the answer. The next prompt repeats that, or it does
not: Qwen3.5's prompts end with `<think>`, and its history never has it; an empty answer may leave
no trace at all. The last question and what stands before it are repeated in any case. A memory that
cannot go back to any place needs to know that place beforehand.

A prompt may also be a long text with a question, and the next one the same text with another
question. Nothing marks that place: it is taken to be behind a line or a sentence near the end.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

from localspec.dialogue.template import Message
from localspec.engine.base import shared_prefix
from localspec.errors import LocalspecError

SLACK = 2
"""Tokens before it, which can merge with other ones behind them."""
GUESS = 32
"""Tokens from the end, for prompts that end otherwise; few templates ask with so many."""

LONGEST_QUESTION = 512
"""Tokens from the end in which a question is looked for."""
SENTENCES = 3
"""That a question may have, where no line sets it apart."""
_ENDS = (".", "?", "!", ":", "\u3002", "\uff01", "\uff1f")

_QUESTION, _OTHER = Message(role="user", content="Why?"), Message(role="user", content="Say no")
_ANSWER = Message(role="assistant", content="So.")

Tail = tuple[int, ...]


def tail_of(ask: Callable[[Sequence[Message]], Sequence[int]]) -> Tail:
    """The tokens that end each prompt of `ask` behind its question; none where it fails.

    They are the same whatever was asked. Where a template makes them depend on the question, they
    are what another turn does not repeat.
    """
    try:
        first, other = ask([_QUESTION]), ask([_OTHER])
        later = ask([_QUESTION, _ANSWER, _QUESTION])
    except LocalspecError:
        return ()
    n_same = shared_prefix(first[::-1], other[::-1])
    n_new = len(first) - shared_prefix(first, later)
    return tuple(first[len(first) - max(n_same, n_new) :])


def n_stable(prompt: Sequence[int], tails: Sequence[Tail]) -> int:
    """How many tokens of `prompt` the conversation's next one has, too.

    `tails` are those of all ways to ask; 0 where nobody has asked, and for a short prompt that ends
    in no known way.
    """
    fitting = [len(tail) for tail in tails if tuple(prompt[len(prompt) - len(tail) :]) == tail]
    if fitting:
        return max(0, len(prompt) - max(fitting) - SLACK)
    return len(prompt) - GUESS if tails and len(prompt) >= 2 * GUESS else 0


def question_places(
    prompt: Sequence[int], n_end: int, piece: Callable[[int], bytes]
) -> tuple[int, ...]:
    """Where a question that ends with token `n_end` may begin, the likeliest last; at most two:
    the last sentence, and the line that it is in, or some sentences before it."""
    start = max(0, n_end - LONGEST_QUESTION)
    texts = [piece(token).decode(errors="replace") for token in prompt[start:n_end]]
    lines, both = list[int](), list[int]()
    for i, (text, following) in enumerate(pairwise(texts), start + 1):
        is_line = text.endswith("\n") and bool(following.strip("\n"))
        if is_line or (text.rstrip(" ").endswith(_ENDS) and following[:1].isspace()):
            both.append(i)
            lines += [i] if is_line else []
    if not both:
        return ()
    earlier = [i for i in lines if i < both[-1]][-1:] or both[-1 - SENTENCES : -1][:1]
    return (*earlier, both[-1])
