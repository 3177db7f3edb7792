"""Commands on saved conversations."""

from datetime import datetime
from pathlib import Path

from localspec.chat.archive import Record, SavedConversation, export_text, find, listed
from localspec.chat.commands.command import ChatState, Next
from localspec.chat.conversation import Named
from localspec.chat.figures import count
from localspec.errors import UserError

MAX_LISTED = 30


def save(desk: ChatState, argument: str) -> Next | None:
    """Give the conversation a name; it is saved in any case."""
    chat = desk.chat
    if not chat.record.is_kept:
        raise UserError("this conversation is not saved, because of --no-save")
    if argument:
        taken = [one for one in listed() if one.conversation.name == argument]
        if any(one.record.id != chat.record.id for one in taken):
            raise UserError(f"another conversation is called {argument!r}: take another name")
        chat.add(Named(argument))
    name = chat.conversation.name
    desk.front.say(f"saved{f' as {name}' if name else ''}: {chat.record.path}")
    return None


def load(desk: ChatState, argument: str) -> Next | None:
    """Go over to a saved conversation."""
    if not argument:
        raise UserError("name a conversation: /sessions lists them")
    record = find(argument)
    if record.id == desk.chat.record.id:
        raise UserError("this is that conversation")
    record.claim()
    if desk.chat.opened:
        desk.front.wait(desk.chat.loading)
    desk.chat.begin(record)
    n_turns = len(desk.chat.conversation.turns)
    desk.front.say(f"{count(n_turns, 'turn')} of {record.id}")
    return None


def sessions(desk: ChatState, argument: str) -> Next | None:
    """List the saved conversations."""
    every = listed()
    if not every:
        desk.front.say("no conversation was saved yet")
        return None
    desk.front.table([_row(one, desk.chat.record) for one in every[:MAX_LISTED]])
    if len(every) > MAX_LISTED:
        desk.front.say(
            f"and {len(every) - MAX_LISTED:,} older ones in {every[0].record.path.parent}"
        )
    return None


def export(desk: ChatState, argument: str) -> Next | None:
    """Write the conversation to a file, as Markdown or JSON by its ending."""
    if not argument:
        raise UserError("name a file: /export talk.md or /export talk.json")
    path = Path(argument.strip("'\"")).expanduser()
    text = export_text(desk.chat.conversation, path.suffix)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise UserError(f"{path} is there already: take another name") from error
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    desk.front.say(f"written: {path}")
    return None


def names() -> list[str]:
    """What `load` can be given."""
    return [one.conversation.name or one.record.id for one in listed()]


def _row(one: SavedConversation, current: Record) -> tuple[str, ...]:
    mark = "*" if one.record.id == current.id else ""
    when = datetime.fromtimestamp(one.changed).astimezone()
    return (
        f"{mark}{one.conversation.name or one.record.id}",
        f"{when:%Y-%m-%d %H:%M}",
        count(len(one.conversation.turns), "turn"),
        one.title[:50],
    )
