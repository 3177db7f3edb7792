"""The first lines of a conversation."""

from collections.abc import Iterator

from localspec.chat.archive import Record, latest
from localspec.chat.chat import Chat
from localspec.chat.status import count


def greeting(chat: Chat, record: Record, *, is_named: bool) -> Iterator[str]:
    """What answers here; on the first run, what it is and how to get a better one."""
    sampling = chat.options.sampling
    seed = "" if sampling.is_greedy else f", seed {sampling.seed}"
    conversation = chat.conversation
    if conversation.turns:
        name = conversation.name or record.id
        yield f"{chat.config.model.name}{seed}; {count(len(conversation.turns), 'turn')} of {name}"
        if conversation.pending is not None:
            first_line = conversation.pending.strip().partition("\n")[0]
            yield f"not answered yet: {first_line[:60]}; /regen answers it"
        return
    if not is_named and latest() is None:
        yield from _first_run()
        return
    yield f"{chat.config.model.name}{seed}; /help lists the commands"


def _first_run() -> Iterator[str]:
    """The first of two lines; the other one, on what is better, comes when the model is there."""
    yield (
        "this is the starter, SmolLM2 135M Instruct (98 MB, Apache-2.0): quick, and good for trying"
        " things out rather than for facts; /help lists the commands"
    )
