"""Read, answer, repeat."""

from localspec.chat.answering import Cancelled, respond
from localspec.chat.archive import now
from localspec.chat.chat import AnswerPending, Ask, ChatState, Edit, Next
from localspec.chat.commands import obey
from localspec.chat.conversation import Asked, Undone
from localspec.chat.figures import Figures
from localspec.chat.loading import LoadedModel, Partner
from localspec.chat.remote_answer import respond_remotely
from localspec.dialogue.template import TemplateError
from localspec.errors import LocalspecError, UserError


def repl(state: ChatState, *, is_strict: bool = False) -> None:
    """Read and answer until the input ends or the user leaves.

    `is_strict`: the first error is raised, and Ctrl-C ends it with KeyboardInterrupt.
    `state.has_failed` says whether a message got no answer.
    """
    draft = ""
    while True:
        state.is_asking = True
        try:
            line = state.frontend.read(draft)
            draft = _take(state, line)
        except EOFError:
            return
        except LocalspecError as error:
            if is_strict or state.chat.has_failed:
                raise
            state.has_failed |= state.is_asking
            state.frontend.say(str(error))
            draft = state.unsent if state.frontend.can_edit else ""
        except KeyboardInterrupt:
            if not state.frontend.can_edit:
                raise
            state.frontend.say("stopped")
            draft = state.unsent
        if is_strict and state.last and state.last.finish_reason == "interrupted":
            raise KeyboardInterrupt


def _take(state: ChatState, line: str) -> str:
    """Obey or answer a line; returns what the user may want to edit next."""
    state.unsent = ""
    text = line.strip()
    if not text:
        return ""
    is_command = text.startswith("/") and not text.startswith("//")
    message = text[1:] if text.startswith("//") else text
    state.is_asking = not is_command
    following: Next | None = obey(state, text) if is_command else Ask(message)
    state.is_asking = isinstance(following, Ask | AnswerPending)
    match following:
        case Ask(asked):
            return _ask(state, asked)
        case Edit(edited):
            return edited
        case AnswerPending():
            _answer(state, state.frontend.wait(state.chat.loading))
        case None:
            pass
    return ""


def _ask(state: ChatState, message: str) -> str:
    """Send a message; returns it for editing where it could not be answered."""
    chat, state.unsent = state.chat, message
    chat.add(Asked("\n\n".join([*state.attachments, message]), now()))
    try:
        _answer(state, state.frontend.wait(chat.loading))
    except (Cancelled, KeyboardInterrupt, UserError) as error:
        if chat.conversation.pending is not None:
            chat.add(Undone())
        if isinstance(error, UserError) or not state.frontend.can_edit:
            raise
        return message
    state.attachments.clear()
    return ""


WAY_ON = "/undo takes messages back, /model NAME goes on with another model"


def _answer(state: ChatState, loaded: Partner) -> None:
    figures, was_left = _answered(state, loaded)
    is_first, state.last = state.last is None, figures
    state.frontend.finished(figures, is_first=is_first)
    if state.chat.conversation.pending is not None:
        state.frontend.say("the model said nothing yet; /regen asks again")
    if was_left:
        raise EOFError
    if state.chat.record.is_kept:
        loaded.save_behind(state.chat.record)


def _answered(state: ChatState, loaded: Partner) -> tuple[Figures, bool]:
    """The figures of the answer, and whether the user left in the middle of it."""
    view, decide = state.frontend.view(loaded), state.frontend.decide
    if not isinstance(loaded, LoadedModel):
        return respond_remotely(state.chat, loaded, view, decide), False
    try:
        run = respond(state.chat, loaded, view, decide)
    except TemplateError as error:
        raise TemplateError(error.reason, WAY_ON) from error
    return Figures.of(run, loaded), run.was_left
