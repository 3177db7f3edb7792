"""Commands on what was said, how it is shown, and where it is saved."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import get_args

from localspec.chat.archive import Record, SavedConversation, export_text, find, listed
from localspec.chat.chat import WhenFull
from localspec.chat.commands.command import (
    AnswerPending,
    Ask,
    Attachment,
    ChatState,
    Edit,
    Leave,
    Next,
)
from localspec.chat.conversation import Configured, Named, Retried, SystemSet, Undone
from localspec.chat.figures import stats as stats_rows
from localspec.errors import UserError
from localspec.format import count

MAX_BYTES = 10_000_000


def read_attachment(name: str) -> Attachment:
    """A file's text. UserError where it cannot be read, is not text, or is absurdly large."""
    path = Path(name.strip().strip("'\"")).expanduser()
    try:
        if path.is_file() and path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path} is larger than {MAX_BYTES // 1_000_000} MB: cut out a part")
        return Attachment(path.name, path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: only text files can be added") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def with_attachments(text: str, attachments: Sequence[Attachment]) -> str:
    """The message with its files before it, each in a fence that it does not contain."""
    parts = [_fenced(attachment) for attachment in attachments]
    return "\n\n".join([*parts, text])


def _fenced(attachment: Attachment) -> str:
    fence = "```"
    while fence in attachment.text:
        fence += "`"
    return f"{attachment.name}:\n{fence}\n{attachment.text.rstrip()}\n{fence}"


def regen(state: ChatState, argument: str) -> Next | None:
    """Answer the last message again; the same seed would bring the same answer."""
    chat = state.chat
    if not chat.conversation.turns:
        raise UserError("there is nothing to answer again")
    if chat.conversation.pending is None:
        chat.add(Retried())
        if not chat.options.sampling.is_greedy:
            state.frontend.say(f"again, with seed {chat.options.sampling.seed}")
    return AnswerPending()


def edit(state: ChatState, argument: str) -> Next | None:
    """Take the last message back to change it; with an argument, replace it."""
    turns = state.chat.conversation.turns
    if not turns:
        raise UserError("there is no message to edit")
    text = turns[-1].question
    state.chat.add(Undone())
    return Ask(argument) if argument else Edit(text)


def undo(state: ChatState, argument: str) -> Next | None:
    """Forget the last message and its answer."""
    turns = state.chat.conversation.turns
    if not turns:
        raise UserError("there is nothing to undo")
    state.chat.add(Undone())
    first_line = turns[-1].question.strip().partition("\n")[0]
    state.frontend.say(f"forgotten: {first_line[:60]}")
    return None


def clear(state: ChatState, argument: str) -> Next | None:
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
    return None


def system(state: ChatState, argument: str) -> Next | None:
    """Show, set or remove the system prompt."""
    chat = state.chat
    if not argument:
        state.frontend.say(f"system prompt: {chat.conversation.system or 'none'}")
        return None
    chat.add(SystemSet(None if argument == "none" else argument))
    state.frontend.say("no system prompt" if argument == "none" else "the system prompt is set")
    return None


def file(state: ChatState, argument: str) -> Next | None:
    """Read a text file, to go with the next message."""
    if not argument:
        raise UserError("name a text file: /file PATH")
    attachment = read_attachment(argument)
    state.attachments.append(attachment)
    loaded = state.chat.loaded
    size = count(len(attachment.text), "character")
    if loaded:
        vocabulary = loaded.session.target.vocabulary
        n_tokens = len(vocabulary.tokenize(attachment.text, add_special=False))
        size = f"{count(n_tokens, 'token')} of {loaded.session.n_ctx:,}"
    state.frontend.say(f"{attachment.name} ({size}) goes with the next message")
    return None


def stats(state: ChatState, argument: str) -> Next | None:
    """Itemise the last answer."""
    if state.last is None:
        raise UserError("there was no answer yet to give figures of")
    rows = stats_rows(state.last)
    loaded = state.chat.loaded
    if loaded:
        rows.append(("loading", f"{loaded.session.load_s:.2f} s"))
        if loaded.n_restored:
            rows.append(("restored", f"{loaded.n_restored:,} tokens from disk"))
    rows.append(
        ("saved in", str(state.chat.record.path) if state.chat.record.is_kept else "no file")
    )
    state.frontend.table(rows)
    return None


def full(state: ChatState, argument: str) -> Next | None:
    """What happens to old turns where the context is full."""
    choices: tuple[WhenFull, ...] = get_args(WhenFull)
    chosen: WhenFull | None = next((c for c in choices if c == argument), None)
    if argument and chosen is None:
        raise UserError(f"/full is one of {', '.join(choices)}, not {argument!r}")
    state.chat.when_full = chosen or state.chat.when_full
    meaning = {"ask": "you are asked", "drop": "the oldest turns go", "stop": "the answer stops"}
    state.frontend.say(f"where the context is full, {meaning[state.chat.when_full]}")
    return None


def think(state: ChatState, argument: str) -> Next | None:
    """Show the reasoning that came before the last answer."""
    if not state.thought.strip():
        raise UserError("the last answer had no reasoning section")
    state.frontend.say(state.thought.strip())
    return None


def leave(state: ChatState, argument: str) -> Next | None:
    """End the chat."""
    return Leave()


MAX_LISTED = 30


def save(state: ChatState, argument: str) -> Next | None:
    """Give the conversation a name; it is saved in any case."""
    chat = state.chat
    if not chat.record.is_kept:
        raise UserError("this conversation is not saved, because of --no-save")
    if argument:
        taken = [one for one in listed() if one.conversation.name == argument]
        if any(one.record.id != chat.record.id for one in taken):
            raise UserError(f"another conversation is called {argument!r}: take another name")
        chat.add(Named(argument))
    name = chat.conversation.name
    state.frontend.say(f"saved{f' as {name}' if name else ''}: {chat.record.path}")
    return None


def load(state: ChatState, argument: str) -> Next | None:
    """Go over to a saved conversation."""
    if not argument:
        raise UserError("name a conversation: /sessions lists them")
    record = find(argument)
    if record.id == state.chat.record.id:
        raise UserError("this is that conversation")
    record.claim()
    if state.chat.loaded:
        state.frontend.wait(state.chat.loading)
    state.chat.begin(record)
    n_turns = len(state.chat.conversation.turns)
    state.frontend.say(f"{count(n_turns, 'turn')} of {record.id}")
    return None


def sessions(state: ChatState, argument: str) -> Next | None:
    """List the saved conversations."""
    every = listed()
    if not every:
        state.frontend.say("no conversation was saved yet")
        return None
    state.frontend.table([_row(one, state.chat.record) for one in every[:MAX_LISTED]])
    if len(every) > MAX_LISTED:
        state.frontend.say(
            f"and {len(every) - MAX_LISTED:,} older ones in {every[0].record.path.parent}"
        )
    return None


def export(state: ChatState, argument: str) -> Next | None:
    """Write the conversation to a file, as Markdown or JSON by its ending."""
    if not argument:
        raise UserError("name a file: /export talk.md or /export talk.json")
    path = Path(argument.strip("'\"")).expanduser()
    text = export_text(state.chat.conversation, path.suffix)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise UserError(f"{path} is there already: take another name") from error
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    state.frontend.say(f"written: {path}")
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
