"""Commands on what was said, how it is shown, and where it is saved."""

import stat
from datetime import datetime
from pathlib import Path
from typing import get_args

from localspec.chat.archive import Record, SavedConversation, export_text, find, listed
from localspec.chat.chat import AnswerPending, Ask, ChatState, Edit, WhenFull
from localspec.chat.conversation import Configured, Named, Retried, SystemSet, Undone, first_line
from localspec.chat.figures import stats as stats_rows
from localspec.chat.loading import LoadedModel
from localspec.chat.remote import RemoteModel
from localspec.errors import UserError
from localspec.fields import Think
from localspec.format import count

MAX_BYTES = 10_000_000
MAX_LISTED = 30
MEANINGS = {"ask": "you are asked", "drop": "the oldest turns go", "stop": "the answer stops"}


def read_text(path: Path) -> str:
    """A file's text. UserError where it cannot be read, is not text, or is absurdly large."""
    try:
        status = path.stat()
        # A device has no end, and a pipe waits for its writer.
        if not (stat.S_ISREG(status.st_mode) or path.is_dir()):
            raise UserError(f"{path} is not a regular file: only text files can be added")
        if status.st_size > MAX_BYTES:
            raise UserError(f"{path} is larger than {MAX_BYTES // 1_000_000} MB: cut out a part")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: only text files can be added") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def fenced(name: str, text: str) -> str:
    """A file's text with its name, in a fence that the text does not contain."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{name}:\n{fence}\n{text.rstrip()}\n{fence}"


def regen(state: ChatState, argument: str) -> AnswerPending:
    """Answer the last message again, with another seed: the same one would repeat the answer."""
    chat = state.chat
    _last_message(state, "there is nothing to answer again")
    if chat.conversation.pending is None:
        chat.add(Retried())
        if not chat.options.sampling.is_greedy:
            state.frontend.say(f"again, with seed {chat.options.sampling.seed}")
    return AnswerPending()


def edit(state: ChatState, argument: str) -> Ask | Edit:
    """Take the last message back to change it; with an argument, replace it."""
    message = _last_message(state, "there is no message to edit")
    state.chat.add(Undone())
    return Ask(argument) if argument else Edit(message)


def undo(state: ChatState, argument: str) -> None:
    """Forget the last message and its answer."""
    message = _last_message(state, "there is nothing to undo")
    state.chat.add(Undone())
    state.frontend.say(f"forgotten: {first_line(message)[:60]}")


def _last_message(state: ChatState, problem: str) -> str:
    turns = state.chat.conversation.turns
    if not turns:
        raise UserError(problem)
    return turns[-1].question


def clear(state: ChatState, argument: str) -> None:
    """Begin a new conversation with the same system prompt and settings."""
    chat = state.chat
    system, settings = chat.conversation.system, chat.conversation.settings
    if chat.conversation.turns:
        chat.begin(Record.new() if chat.record.is_kept else type(chat.record)(chat.record.path))
        if settings:
            chat.add(Configured(settings))
        if system:
            chat.add(SystemSet(system))
    state.attachments.clear()
    state.frontend.say("a new conversation")


def system(state: ChatState, argument: str) -> None:
    """Set or remove the system prompt."""
    state.chat.add(SystemSet(None if argument == "none" else argument))
    state.frontend.say("no system prompt" if argument == "none" else "the system prompt is set")


def file(state: ChatState, argument: str) -> None:
    """Read a text file, to go with the next message."""
    if not argument:
        raise UserError("name a text file: /file PATH")
    path = Path(argument.strip("'\"")).expanduser()
    text = read_text(path)
    state.attachments.append(fenced(path.name, text))
    loaded = state.chat.loaded
    size = (loaded and loaded.size_of(text)) or count(len(text), "character")
    state.frontend.say(f"{path.name} ({size}) goes with the next message")


def stats(state: ChatState, argument: str) -> None:
    """Itemise the last answer."""
    if state.last is None:
        raise UserError("there was no answer yet to give figures of")
    loaded, record = state.chat.loaded, state.chat.record
    rows = stats_rows(state.last, is_here=not isinstance(loaded, RemoteModel))
    rows += loaded.rows() if loaded else []
    rows.append(("saved in", str(record.path) if record.is_kept else "no file"))
    state.frontend.table(rows)


def full(state: ChatState, argument: str) -> None:
    """Choose what happens to old turns where the context is full."""
    choices: tuple[WhenFull, ...] = get_args(WhenFull)
    chosen: WhenFull | None = next((choice for choice in choices if choice == argument), None)
    if chosen is None:
        raise UserError(f"/full is one of {', '.join(choices)}, not {argument!r}")
    state.chat.when_full = chosen
    state.frontend.say(when_full(state))


def when_full(state: ChatState) -> str:
    """What `full` has chosen, in words."""
    return f"where the context is full, {MEANINGS[state.chat.when_full]}"


def think(state: ChatState, argument: str) -> None:
    """Show the reasoning that came before the last answer, or ask for more or less of it."""
    level = next((level for level in get_args(Think) if level == argument), None)
    if level is not None:
        state.chat.set_thinking(level)
        state.chat.remember(think=level)
        loaded = state.chat.loaded
        if isinstance(loaded, LoadedModel):
            loaded.session.prompts_for(state.chat.options, state.chat.conversation.date)
        return
    if argument:
        raise UserError(f"/think is one of {', '.join(get_args(Think))}, not {argument!r}")
    answers = [turn.answer for turn in state.chat.conversation.turns if turn.answer]
    thought = answers[-1].thought.strip() if answers else ""
    if not thought:
        raise UserError("the last answer had no reasoning section")
    state.frontend.say(thought)


def leave(state: ChatState, argument: str) -> None:
    """End the chat."""
    raise EOFError


def save(state: ChatState, argument: str) -> None:
    """Give the conversation a name; it is saved in any case."""
    chat = state.chat
    if not chat.record.is_kept:
        raise UserError("--no-save keeps this conversation out of all files")
    if argument:
        taken = [one for one in listed() if one.conversation.name == argument]
        if any(one.record.id != chat.record.id for one in taken):
            raise UserError(f"another conversation is called {argument!r}: take another name")
        chat.add(Named(argument))
    saved = "saved" if chat.record.path.exists() else "with the first message it will be saved"
    name = chat.conversation.name
    state.frontend.say(f"{saved}{f' as {name}' if name else ''}: {chat.record.path}")


def load(state: ChatState, argument: str) -> None:
    """Go over to a saved conversation."""
    chat = state.chat
    if not argument:
        raise UserError("name a conversation: /sessions lists them")
    record = find(argument)
    if record.id == chat.record.id:
        raise UserError("this is that conversation")
    record.claim()
    chat.begin(record)
    state.frontend.say(f"{count(len(chat.conversation.turns), 'turn')} of {record.id}")


def sessions(state: ChatState, argument: str) -> None:
    """List the saved conversations."""
    every = listed()
    if not every:
        state.frontend.say("no conversation was saved yet")
        return
    state.frontend.table([_row(one, state.chat.record) for one in every[:MAX_LISTED]])
    n_older = len(every) - MAX_LISTED
    if n_older > 0:
        state.frontend.say(f"and {n_older:,} older ones in {every[0].record.path.parent}")


def export(state: ChatState, argument: str) -> None:
    """Write the conversation to a file, as Markdown or JSON by its ending."""
    if not argument:
        raise UserError("name a file: /export talk.md or /export talk.json")
    path = Path(argument.strip("'\"")).expanduser()
    text = export_text(state.chat.conversation, path.suffix)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise UserError(f"{path} exists already: take another name") from error
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    state.frontend.say(f"written: {path}")


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
