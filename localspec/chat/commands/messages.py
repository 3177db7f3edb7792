"""Commands on what was said: again, otherwise, not at all.

Commands that show something or say how it is shown.

Text files as context of a message.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from localspec.chat.answer_run import WhenFull
from localspec.chat.archive import Record
from localspec.chat.commands.command import (
    AnswerPending,
    Ask,
    Attachment,
    ChatState,
    Edit,
    Leave,
    Next,
)
from localspec.chat.conversation import Configured, Retried, SystemSet, Undone
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


def regen(desk: ChatState, argument: str) -> Next | None:
    """Answer the last message again; the same seed would bring the same answer."""
    chat = desk.chat
    if not chat.conversation.turns:
        raise UserError("there is nothing to answer again")
    if chat.conversation.pending is None:
        chat.add(Retried())
        if not chat.options.sampling.is_greedy:
            desk.front.say(f"again, with seed {chat.options.sampling.seed}")
    return AnswerPending()


def edit(desk: ChatState, argument: str) -> Next | None:
    """Take the last message back to change it; with an argument, replace it."""
    turns = desk.chat.conversation.turns
    if not turns:
        raise UserError("there is no message to edit")
    text = turns[-1].question
    desk.chat.add(Undone())
    return Ask(argument) if argument else Edit(text)


def undo(desk: ChatState, argument: str) -> Next | None:
    """Forget the last message and its answer."""
    turns = desk.chat.conversation.turns
    if not turns:
        raise UserError("there is nothing to undo")
    desk.chat.add(Undone())
    first_line = turns[-1].question.strip().partition("\n")[0]
    desk.front.say(f"forgotten: {first_line[:60]}")
    return None


def clear(desk: ChatState, argument: str) -> Next | None:
    """Begin a new conversation with the same system prompt and settings."""
    chat = desk.chat
    system, settings = chat.conversation.system, chat.conversation.settings
    if chat.conversation.turns:
        chat.begin(Record.new() if chat.record.is_kept else type(chat.record)(chat.record.path))
        if settings:
            chat.add(Configured(settings))
        if system:
            chat.add(SystemSet(system))
    desk.attachments.clear()
    desk.front.say("a new conversation")
    return None


def system(desk: ChatState, argument: str) -> Next | None:
    """Show, set or remove the system prompt."""
    chat = desk.chat
    if not argument:
        desk.front.say(f"system prompt: {chat.conversation.system or 'none'}")
        return None
    chat.add(SystemSet(None if argument == "none" else argument))
    desk.front.say("no system prompt" if argument == "none" else "the system prompt is set")
    return None


def file(desk: ChatState, argument: str) -> Next | None:
    """Read a text file, to go with the next message."""
    if not argument:
        raise UserError("name a text file: /file PATH")
    attachment = read_attachment(argument)
    desk.attachments.append(attachment)
    opened = desk.chat.opened
    size = count(len(attachment.text), "character")
    if opened:
        vocabulary = opened.session.target.vocabulary
        n_tokens = len(vocabulary.tokenize(attachment.text, add_special=False))
        size = f"{count(n_tokens, 'token')} of {opened.session.n_ctx:,}"
    desk.front.say(f"{attachment.name} ({size}) goes with the next message")
    return None


def stats(desk: ChatState, argument: str) -> Next | None:
    """Itemise the last answer."""
    if desk.last is None:
        raise UserError("there was no answer yet to give figures of")
    rows: list[tuple[str, ...]] = list(stats_rows(desk.last))
    opened = desk.chat.opened
    if opened:
        rows.append(("loading", f"{opened.session.load_s:.2f} s"))
        if opened.n_restored:
            rows.append(("restored", f"{opened.n_restored:,} tokens from disk"))
    rows.append(("saved in", str(desk.chat.record.path) if desk.chat.record.is_kept else "no file"))
    desk.front.table(rows)
    return None


def full(desk: ChatState, argument: str) -> Next | None:
    """What happens to old turns where the context is full."""
    choices: tuple[WhenFull, ...] = get_args(WhenFull)
    chosen: WhenFull | None = next((c for c in choices if c == argument), None)
    if argument and chosen is None:
        raise UserError(f"/full is one of {', '.join(choices)}, not {argument!r}")
    desk.chat.when_full = chosen or desk.chat.when_full
    meaning = {"ask": "you are asked", "drop": "the oldest turns go", "stop": "the answer stops"}
    desk.front.say(f"where the context is full, {meaning[desk.chat.when_full]}")
    return None


def think(desk: ChatState, argument: str) -> Next | None:
    """Show the reasoning that came before the last answer."""
    if not desk.thought.strip():
        raise UserError("the last answer had no reasoning section")
    desk.front.say(desk.thought.strip())
    return None


def leave(desk: ChatState, argument: str) -> Next | None:
    """End the chat."""
    return Leave()
