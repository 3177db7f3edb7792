"""Where the next prompt parts from this one: a checkpoint behind that place is of no use."""

from collections.abc import Callable, Sequence

import pytest

from localspec.dialogue.tail import GUESS, n_stable, tail_of
from localspec.dialogue.template import Message
from localspec.engine.base import shared_prefix
from localspec.errors import ModelError

Ask = Callable[[Sequence[Message]], str]


def written(messages: Sequence[Message], end: str, *, keeps_empty: bool = True) -> str:
    said = [m for m in messages if keeps_empty or m["content"]]
    return "".join(f"<{m['role']}>{m['content']}</>\n" for m in said) + end


def by_last_letter(messages: Sequence[Message]) -> str:
    return written(messages, f"<assistant>{messages[-1]['content'][-1]}")


ASKS: dict[str, Ask] = {
    "plain": lambda messages: written(messages, "<assistant>"),
    "thinks": lambda messages: written(messages, "<assistant><think>\n"),
    "thinks not": lambda messages: written(messages, "<assistant><think>\n\n</think>\n\n"),
    "drops empty": lambda messages: written(messages, "<assistant><think>", keeps_empty=False),
    "by the last letter": by_last_letter,
    "no template": lambda messages: "".join(m["content"] + "\n\n" for m in messages),
}


@pytest.mark.parametrize("kind", ASKS)
@pytest.mark.parametrize("answer", ["", "Yes.", "\nno", "<thi", "Why?"])
def test_the_next_prompt_begins_with_what_is_called_stable(kind: str, answer: str) -> None:
    """Otherwise the memory goes back to an older place, and reads a turn more, or everything."""
    ask = ASKS[kind]
    tail = tail_of(lambda messages: [ord(c) for c in ask(messages)])
    said = [Message(role="user", content="Tell me something of the sea, of ships and of storms.")]
    prompt = [ord(c) for c in ask(said)]
    n = n_stable(prompt, [tail])
    said += [Message(role="assistant", content=answer), Message(role="user", content="And fish?")]
    assert n <= shared_prefix(prompt, [ord(c) for c in ask(said)])
    assert n >= len(prompt) - 36


def test_prompts_that_nobody_asked_for_are_left_alone() -> None:
    """A pause costs a pass, which a benchmark of made-up tokens would show."""
    prompt = list(range(1000))
    assert n_stable(prompt, []) == 0
    assert n_stable(prompt, [(5, 6), (7,)]) == 1000 - GUESS
    assert n_stable(prompt[:40], [(5, 6)]) == 0
    assert n_stable(prompt, [(998, 999), (999,)]) < n_stable(prompt, [(999,)]) < 999
    assert n_stable([1], [(1,)]) == 0


def test_a_template_that_fails_has_no_tail() -> None:
    """It fails where somebody asks with it, and says so there."""

    def broken(messages: Sequence[Message]) -> list[int]:
        raise ModelError("no")

    assert tail_of(broken) == ()
