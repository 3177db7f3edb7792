"""Commands on what was said: again, otherwise, not at all."""

from localspec.chat.archive import Record
from localspec.chat.attach import read_attachment
from localspec.chat.commands.base import AnswerPending, Ask, Desk, Edit, Next
from localspec.chat.events import Configured, Retried, SystemSet, Undone
from localspec.chat.status import count
from localspec.errors import UserError


def regen(desk: Desk, argument: str) -> Next | None:
    """Answer the last message again; the same seed would bring the same answer."""
    chat = desk.chat
    if not chat.conversation.turns:
        raise UserError("there is nothing to answer again")
    if chat.conversation.pending is None:
        chat.add(Retried())
        if not chat.options.sampling.is_greedy:
            desk.front.say(f"again, with seed {chat.options.sampling.seed}")
    return AnswerPending()


def edit(desk: Desk, argument: str) -> Next | None:
    """Take the last message back to change it; with an argument, replace it."""
    turns = desk.chat.conversation.turns
    if not turns:
        raise UserError("there is no message to edit")
    text = turns[-1].question
    desk.chat.add(Undone())
    return Ask(argument) if argument else Edit(text)


def undo(desk: Desk, argument: str) -> Next | None:
    """Forget the last message and its answer."""
    turns = desk.chat.conversation.turns
    if not turns:
        raise UserError("there is nothing to undo")
    desk.chat.add(Undone())
    first_line = turns[-1].question.strip().partition("\n")[0]
    desk.front.say(f"forgotten: {first_line[:60]}")
    return None


def clear(desk: Desk, argument: str) -> Next | None:
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


def system(desk: Desk, argument: str) -> Next | None:
    """Show, set or remove the system prompt."""
    chat = desk.chat
    if not argument:
        desk.front.say(f"system prompt: {chat.conversation.system or 'none'}")
        return None
    chat.add(SystemSet(None if argument == "none" else argument))
    desk.front.say("no system prompt" if argument == "none" else "the system prompt is set")
    return None


def file(desk: Desk, argument: str) -> Next | None:
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
