"""Read, answer, repeat."""

from localspec.chat.answering import Cancelled, respond
from localspec.chat.archive import now
from localspec.chat.commands.command import AnswerPending, Ask, ChatState, Edit, Leave, Next
from localspec.chat.commands.messages import with_attachments
from localspec.chat.commands.table import run
from localspec.chat.conversation import Asked, Undone
from localspec.chat.figures import Figures
from localspec.chat.models import LoadedModel
from localspec.errors import LocalspecError, UserError


def repl(desk: ChatState, *, is_strict: bool = False) -> None:
    """Until the input ends or the user leaves. `is_strict`: the first error ends it, and so does
    Ctrl-C, with KeyboardInterrupt."""
    draft = ""
    while True:
        try:
            line = desk.front.read(draft)
            draft = _take(desk, line)
        except (EOFError, _Left):
            return
        except LocalspecError as error:
            if is_strict or desk.chat.has_failed:
                raise
            desk.front.say(str(error))
            draft = desk.unsent if desk.front.can_edit else ""
        except KeyboardInterrupt:
            if not desk.front.can_edit:
                raise
            desk.front.say("stopped")
            draft = desk.unsent
        if is_strict and desk.last and desk.last.finish_reason == "interrupted":
            raise KeyboardInterrupt


class _Left(Exception):
    """The user goes."""


def _take(desk: ChatState, line: str) -> str:
    """Obey or answer a line; what the user may want to edit next."""
    desk.unsent = ""
    text = line.strip()
    if not text:
        return ""
    is_command = text.startswith("/") and not text.startswith("//")
    message = text[1:] if text.startswith("//") else text
    following: Next | None = run(desk, text) if is_command else Ask(message)
    match following:
        case Ask(asked):
            return _ask(desk, asked)
        case Edit(edited):
            return edited
        case AnswerPending():
            _answer(desk, desk.front.wait(desk.chat.loading))
        case Leave():
            raise _Left
        case None:
            pass
    return ""


def _ask(desk: ChatState, message: str) -> str:
    """Send a message; it comes back for editing where it could not be answered."""
    chat, desk.unsent = desk.chat, message
    chat.add(Asked(with_attachments(message, desk.attachments), now()))
    try:
        _answer(desk, desk.front.wait(chat.loading))
    except (Cancelled, KeyboardInterrupt, UserError) as error:
        if chat.conversation.pending is not None:
            chat.add(Undone())
        if isinstance(error, UserError) or not desk.front.can_edit:
            raise
        return message
    desk.attachments.clear()
    return ""


def _answer(desk: ChatState, opened: LoadedModel) -> None:
    view = desk.front.view(opened)
    exchange = respond(desk.chat, opened, view, desk.front.decide, desk.front.say)
    is_first, figures = desk.last is None, Figures.of(exchange, opened)
    desk.last, desk.thought = figures, view.thought
    desk.front.finished(figures, is_first=is_first)
    if desk.chat.conversation.pending is not None:
        desk.front.say("nothing was said yet; /regen asks again")
    if exchange.was_left:
        raise _Left
    if desk.chat.record.is_kept:
        opened.states.save_behind(desk.chat.record)
