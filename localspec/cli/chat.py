"""`localspec chat`: talk to a model.

Here are its options, the conversation's file, who is to answer, and where it is held.
"""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import typer

from localspec.cli.flags import EngineFlags, ReplyFlags
from localspec.cli.options import KEYS_VARIABLE, ModelArgument, command, option
from localspec.cli.output import notify
from localspec.cli.prompts import check_text
from localspec.errors import UserError
from localspec.format import count
from localspec.notify import Notify, Progress
from localspec.settings import ROWS

if TYPE_CHECKING:
    from localspec.chat.archive import Record
    from localspec.chat.chat import Chat, Where
    from localspec.chat.conversation import Conversation
    from localspec.chat.frontend import Frontend
    from localspec.chat.loading import Partner
    from localspec.chat.remote import Elsewhere

_TALK = "Conversation"
ENGINE_FIELDS = (*ROWS, "verify", "no_profile", "no_auto")
ENGINE_SETTINGS = ("draft", "spec", "kv_k", "kv_v", "template")
TOLD_SETTINGS = ("think", "template_arg")
REPLY_SETTINGS = ("temp", "seed", *TOLD_SETTINGS)
ALL_SETTINGS = (*ENGINE_SETTINGS, *REPLY_SETTINGS)

Flags = TypeVar("Flags", EngineFlags, ReplyFlags)


@dataclass(frozen=True)
class ChatFlags:
    """The conversation, and how it is shown."""

    prompt: str | None = option(
        None, "Answer this and exit; - reads standard input.", "--prompt", "-p",
        metavar="TEXT", panel=_TALK,
    )  # fmt: skip
    goes_on: bool = option(
        False, "Go on with the last conversation.", "--continue", "-c", panel=_TALK
    )
    session: str | None = option(
        None, "Go on with this conversation: its name, or the beginning of its id.",
        metavar="NAME", panel=_TALK,
    )  # fmt: skip
    no_save: bool = option(False, "Do not save the conversation.", "--no-save", panel=_TALK)
    when_full: Literal["ask", "drop", "stop"] = option(
        "ask", "In a full context: ask, drop old turns, or stop the answer.", panel=_TALK
    )
    plain: bool = option(False, "Plain text, no Markdown.", "--plain", panel=_TALK)
    show_draft: bool = option(
        False, "Colour tokens by who drafted them.", "--show-draft", panel=_TALK
    )
    json_lines: bool = option(
        False, "Events for programs, one JSON object a line.", "--json-lines", panel=_TALK
    )
    server: str | None = option(
        None, "Talk to the model of this server; MODEL is one of its names.", metavar="URL",
        panel=_TALK,
    )  # fmt: skip
    api_key: str | None = option(
        None, f"The key that the server wants. Also from {KEYS_VARIABLE}.", "--api-key",
        metavar="KEY", panel=_TALK,
    )  # fmt: skip

    @property
    def is_interactive(self) -> bool:
        """Whether a person types and reads."""
        is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
        return is_terminal and self.prompt is None and not self.json_lines


@command
def chat(
    engine: EngineFlags, flags: ReplyFlags, how: ChatFlags, model: ModelArgument = None
) -> None:
    """Talk to a model.

    localspec chat

    localspec chat model.gguf --system "Answer in one sentence."

    localspec chat --continue

    localspec chat -p "Why is the sky blue?" --json-lines

    localspec chat --server http://localhost:8080
    """
    record = record_for(how.session, goes_on=how.goes_on, is_kept=not how.no_save)
    conversation = open_chat(record, engine, flags, how, model)
    frontend = _frontend(conversation, how)
    if not how.json_lines and how.prompt is None:
        for text in _greeting(conversation, record, is_named=model is not None):
            frontend.say(text)
    _hold(conversation, frontend, how)


def _greeting(chat: "Chat", record: "Record", *, is_named: bool) -> Iterator[str]:
    """The first lines: model and seed, and on the first run a word about the starter."""
    from localspec.chat.archive import latest
    from localspec.chat.conversation import first_line
    from localspec.session.session_config import SessionConfig

    sampling = chat.options.sampling
    seed = "" if sampling.is_greedy else f", seed {sampling.seed}"
    conversation = chat.conversation
    if conversation.turns:
        name = conversation.name or record.id
        yield f"{chat.model_name}{seed}; {count(len(conversation.turns), 'turn')} of {name}"
        if conversation.pending is not None:
            yield f"not answered yet: {first_line(conversation.pending)[:60]}; /regen answers it"
        return
    if not is_named and isinstance(chat.where, SessionConfig) and latest() is None:
        yield (
            "this is the starter, SmolLM2 135M Instruct (98 MB, Apache-2.0): quick, and good for"
            " trying things out rather than for facts; /help lists the commands"
        )
        return
    yield f"{chat.model_name}{seed}; /help lists the commands"


def _hold(conversation: "Chat", frontend: "Frontend", how: ChatFlags) -> None:
    """Talk until the end, and close the conversation. Raises typer.Exit where a pipe's messages
    were not all answered."""
    from localspec.chat.chat import ChatState, close, leave
    from localspec.chat.repl import repl

    conversation.loading  # noqa: B018 - starts now, in the background
    state = ChatState(conversation, frontend)
    try:
        repl(state, is_strict=how.prompt is not None)
    except BaseException:
        close(conversation)
        raise
    code = int(state.has_failed and not how.is_interactive)
    leave(conversation, code)
    if code:
        raise typer.Exit(code)


def _frontend(conversation: "Chat", how: ChatFlags) -> "Frontend":
    from localspec.chat.frontend import Frontend, ProgramFrontend, is_dumb, typed_line

    if how.is_interactive and not is_dumb():
        from localspec.chat.terminal import Style, TerminalFrontend

        style = Style(is_plain=how.plain, shows_drafts=how.show_draft)
        return TerminalFrontend(conversation, style)
    conversation.notify = notify
    next_message = typed_line if how.is_interactive else _messages(how.prompt)
    if how.json_lines:
        frontend = ProgramFrontend(next_message)
        conversation.notify = frontend.say
        return frontend
    return Frontend(next_message, notify)


def _messages(prompt: str | None) -> Callable[[], str]:
    """The prompt, or a line each time. A line that is no text raises when it is asked for."""
    if prompt is None:
        return _line
    text = sys.stdin.read() if prompt == "-" else prompt
    checked = check_text("the prompt", text)
    if not checked.strip():
        raise UserError("the prompt is empty: give some text")
    return iter([checked]).__next__


def _line() -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return check_text("the line", line)


def record_for(name: str | None, *, goes_on: bool, is_kept: bool) -> "Record":
    """The file of an old conversation, or of a new one. Raises UserError if there is none."""
    from localspec.chat.archive import NullRecord, Record, find, latest

    if goes_on and name:
        raise UserError("--continue and --session: name one of them")
    if name:
        record = find(name)
    elif goes_on:
        last = latest()
        if last is None:
            raise UserError("there is no conversation to go on with: start one without --continue")
        record = last
    else:
        return Record.new() if is_kept else NullRecord(Record.new().path)
    record.claim()
    return record


def open_chat(
    record: "Record", engine: EngineFlags, flags: ReplyFlags, how: ChatFlags, model: str | None
) -> "Chat":
    """A conversation whose model is not loaded yet. Flags take precedence over kept settings.

    Raises UserError or ModelError.
    """
    from localspec.chat.archive import latest
    from localspec.chat.chat import Chat
    from localspec.chat.conversation import Configured, Conversation, SystemSet
    from localspec.session.reply_options import reply_options

    kept = Conversation.of(record.events())
    where, settings = _elsewhere(engine, how, kept, model), dict[str, Any]()
    flags = _with_kept(flags, kept, model)
    if where is None:
        engine, name = _with_kept(engine, kept, model), model or kept.settings.get("model")
        where, settings = engine.session_config(name), _settings_here(engine, name, kept)
    else:
        settings = {"server": where.address.url}
    settings |= {key: getattr(flags, key) for key in TOLD_SETTINGS if key in flags.given}
    is_first = model is None and how.server is None and latest() is None
    options = reply_options(**flags.keywords(engine.verify))
    chat = Chat(partial(_load, is_first), where, options, record, how.when_full)
    if any(kept.settings.get(key) != value for key, value in settings.items()):
        chat.add(Configured(settings))
    if flags.system and flags.system != kept.system:
        chat.add(SystemSet(flags.system))
    return chat


def _elsewhere(
    engine: EngineFlags, how: ChatFlags, kept: "Conversation", model: str | None
) -> "Elsewhere | None":
    """The server that is to answer: the one that is named, or where the conversation was held."""
    from localspec.chat.remote import Elsewhere, ServerAddress

    held = kept.settings.get("server") if model is None else None
    address = held if how.server is None else how.server
    if address is None:
        if how.api_key is not None:
            raise UserError("--api-key is for a server: name it with --server")
        return None
    here = sorted(engine.given & set(ENGINE_FIELDS)) + ["show_draft"] * how.show_draft
    if here:
        flag = here[0].replace("_", "-")
        raise UserError(f"--{flag} belongs where the model is loaded: give it to the server")
    key = how.api_key or os.environ.get(KEYS_VARIABLE) or None
    return Elsewhere(ServerAddress.of(address, key), model)


def _settings_here(engine: EngineFlags, name: str | None, kept: "Conversation") -> dict[str, Any]:
    """What is kept of a model that is loaded here."""
    from localspec.chat.chat import lasting_name

    settings: dict[str, Any] = {"model": lasting_name(name)}
    if kept.settings.get("server"):
        settings["server"] = None
    settings |= {key: getattr(engine, key) for key in ENGINE_SETTINGS if key in engine.given}
    return settings | {n: lasting_name(settings[n]) for n in ("draft", "template") if n in settings}


def _with_kept(flags: Flags, kept: "Conversation", model: str | None) -> Flags:
    """With kept settings as if they were given; another model starts without."""
    names = REPLY_SETTINGS if isinstance(flags, ReplyFlags) or model else ALL_SETTINGS
    own = {name for name in names if hasattr(flags, name)}
    old = {n: kept.settings[n] for n in own - flags.given if n in kept.settings}
    return replace(flags, given=flags.given | frozenset(old), **old)


def _load(
    is_first: bool, where: "Where", record: "Record", notify: Notify, on_progress: Progress
) -> "Partner":
    """Load a model and its saved cache, or ask a server for its own. Raises LocalspecError.

    On the first run: say which model would be better here, once the starter is there. The thread
    that loads imports the engine, so that the prompt is there already.
    """
    from localspec.chat.loading import LoadedModel
    from localspec.chat.remote import Elsewhere, RemoteModel

    if isinstance(where, Elsewhere):
        return RemoteModel.of(where)
    loaded = LoadedModel.open(where, record, notify, on_progress)
    if is_first:
        from localspec.forecast.recommend import better_than_starter

        if sentence := better_than_starter():
            notify(sentence)
    return loaded
