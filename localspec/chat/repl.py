"""Read, answer or obey, repeat; and what a line that begins with a slash does.

All commands stand here in the order of `/help`. To add one: a function, and a line here.
"""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

from localspec.chat import model_commands as model
from localspec.chat import talk_commands as said
from localspec.chat.answering import Cancelled, respond
from localspec.chat.archive import now
from localspec.chat.chat import AnswerPending, Ask, Chat, ChatState, Edit, Next, WhenFull
from localspec.chat.conversation import Asked, Undone
from localspec.chat.figures import Figures
from localspec.chat.loading import LoadedModel, Partner
from localspec.chat.remote import Elsewhere
from localspec.chat.remote_answer import respond_remotely
from localspec.dialogue.families import FAMILIES
from localspec.dialogue.template import TemplateError
from localspec.errors import LocalspecError, UserError
from localspec.fields import Think
from localspec.registry.local_models import known_names
from localspec.settings import CACHE_TYPES

Handler = Callable[[ChatState, str], Next | None]
Completions = Callable[[], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Command:
    """`usage` follows the name in `/help`; `choices`: what can complete its argument.

    `shows` is what it says without an argument, instead of `run`; `takes_path`: it takes a file;
    `is_here`: it is for a model that is loaded here, not for a server's.
    """

    name: str
    usage: str
    help: str
    run: Handler
    choices: Completions = lambda: ()
    shows: Callable[[ChatState], str] | None = None
    takes_path: bool = False
    is_here: bool = False


def show_help(state: ChatState, argument: str) -> None:
    """List the commands and keys."""
    rows = [(f"/{each.name} {each.usage}".rstrip(), each.help) for each in commands_of(state.chat)]
    state.frontend.table([*rows, *KEYS])


def commands_of(chat: Chat) -> list[Command]:
    """Those that make sense with whoever answers."""
    is_here = not isinstance(chat.where, Elsewhere)
    return [command for command in COMMANDS if is_here or not command.is_here]


COMMANDS = (
    Command("help", "", "this list", show_help),
    Command("model", "NAME", "go on with another model", model.model,
            known_names, lambda s: f"model: {s.chat.config.model}", is_here=True),
    Command("draft", "NAME|own|none", "use another draft model or head", model.draft,
            lambda: ("none", "own", *known_names()),
            lambda s: f"draft: {s.chat.config.settings.draft}", is_here=True),
    Command("spec", "auto|none|lookup|draft|mtp|...", "choose who drafts tokens", model.spec,
            lambda: model.SPECULATIONS, model.speculation, is_here=True),
    Command("kv", "K [V]", "types of the K and V cache", model.kv,
            lambda: CACHE_TYPES, model.cache_types, is_here=True),
    Command("system", "TEXT|none", "set the system prompt", said.system,
            shows=lambda s: f"system prompt: {s.chat.conversation.system or 'none'}"),
    Command("temp", "T", "temperature; 0: the likeliest token", model.temp,
            shows=lambda s: f"temperature: {s.chat.options.sampling.temperature:g}"),
    Command("seed", "N", "same seed, same answer", model.seed,
            shows=lambda s: f"seed: {s.chat.options.sampling.seed}"),
    Command("regen", "", "answer the last message again", said.regen),
    Command("edit", "[TEXT]", "change the last message", said.edit),
    Command("undo", "", "forget the last message and answer", said.undo),
    Command("file", "PATH", "add a text file to the next message", said.file, takes_path=True),
    Command("save", "[NAME]", "name this conversation", said.save),
    Command("load", "NAME", "go over to a saved conversation", said.load, said.names),
    Command("sessions", "", "list saved conversations", said.sessions),
    Command("export", "FILE", "write it as .md or .json", said.export, takes_path=True),
    Command("stats", "", "itemise the last answer", said.stats),
    Command("think", "[on|off|low|medium|high]", "show or switch reasoning",
            said.think, lambda: get_args(Think)),
    Command("template", "NAME|FILE|auto", "ask with another chat template", model.template,
            lambda: ("auto", *FAMILIES), lambda s: f"template: {s.chat.config.settings.template}",
            takes_path=True, is_here=True),
    Command("full", "ask|drop|stop", "what to do in a full context", said.full,
            lambda: get_args(WhenFull), said.when_full),
    Command("tune", "[SECONDS|quick]", "find the best settings here", model.tune, is_here=True),
    Command("clear", "", "start a new conversation", said.clear),
    Command("quit", "", "leave; Ctrl-D does too", said.leave),
)  # fmt: skip

OTHER_NAMES = {"exit": "quit", "bye": "quit", "?": "help"}
"""What other programs call a command: who wants to leave must not have to look that up."""
KEYS = (
    ("Alt-Enter", 'a new line; or end one with \\, or open """'),
    ("//...", "a message that begins with a slash"),
    ("Ctrl-C", "stop an answer; twice: leave"),
    ("Ctrl-R", "search what was typed before"),
)


def obey(state: ChatState, line: str) -> Next | None:
    """Obey a line that begins with a slash. Raises LocalspecError, and EOFError to leave."""
    name, _, argument = line[1:].partition(" ")
    wanted = OTHER_NAMES.get(name, name)
    command = next((command for command in COMMANDS if command.name == wanted), None)
    if command is None:
        close = difflib.get_close_matches(name, [command.name for command in COMMANDS], 1)
        advice = f"did you mean /{close[0]}?" if close else "/help lists them"
        raise UserError(f"there is no command /{name}: {advice}")
    if command.is_here:
        state.chat.config  # noqa: B018 - or the sentence why there is none
    if command.shows and not argument.strip():
        state.frontend.say(command.shows(state))
        return None
    return command.run(state, argument.strip())


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
