"""`localspec chat`: talk to a model."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import typer

from localspec.cli.flags import EngineFlags, ReplyFlags, check_text
from localspec.cli.notify import notify
from localspec.cli.options import ModelArgument, command, option
from localspec.errors import LocalspecError, UserError
from localspec.format import count
from localspec.notify import Notify, Progress

if TYPE_CHECKING:
    from localspec.chat.archive import Record
    from localspec.chat.chat import Chat, WhenFull
    from localspec.chat.conversation import Conversation
    from localspec.chat.frontend import Frontend
    from localspec.chat.loading import LoadedModel
    from localspec.session.config import SessionConfig

_TALK = "Conversation"
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
    """
    record = _record_for(how.session, goes_on=how.goes_on, is_kept=not how.no_save)
    conversation = _open_chat(record, engine, flags, model, how.when_full)
    frontend = _frontend(conversation, how, NamedModels())
    if not how.json_lines and how.prompt is None:
        for text in _greeting(conversation, record, is_named=model is not None):
            frontend.say(text)
    _hold(conversation, frontend, how)


def _record_for(name: str | None, *, goes_on: bool, is_kept: bool) -> "Record":
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


def _open_chat(
    record: "Record",
    engine: EngineFlags,
    flags: ReplyFlags,
    model: str | None,
    when_full: "WhenFull",
) -> "Chat":
    """A conversation whose model is not loaded yet. Flags take precedence over kept settings.

    Raises UserError or ModelError.
    """
    from localspec.chat.archive import latest
    from localspec.chat.chat import Chat
    from localspec.chat.commands.command import lasting_name
    from localspec.chat.conversation import Configured, Conversation, SystemSet

    kept = Conversation.of(record.events())
    name = model or kept.settings.get("model")
    engine, flags = _with_kept(engine, kept, model), _with_kept(flags, kept, model)
    config, options = engine.session_config(name), flags.reply_options(engine.verify)
    opening = _load_first if model is None and latest() is None else _load
    chat = Chat(opening, config, options, record, when_full)
    settings = {"model": lasting_name(name)}
    settings |= {key: getattr(engine, key) for key in ENGINE_SETTINGS if key in engine.given}
    settings |= {key: getattr(flags, key) for key in TOLD_SETTINGS if key in flags.given}
    settings |= {n: lasting_name(settings[n]) for n in ("draft", "template") if n in settings}
    if any(kept.settings.get(key) != value for key, value in settings.items()):
        chat.add(Configured(settings))
    if flags.system and flags.system != kept.system:
        chat.add(SystemSet(flags.system))
    return chat


def _with_kept(flags: Flags, kept: "Conversation", model: str | None) -> Flags:
    """With kept settings as if they were given; another model starts without."""
    names = REPLY_SETTINGS if isinstance(flags, ReplyFlags) or model else ALL_SETTINGS
    own = {name for name in names if hasattr(flags, name)}
    old = {n: kept.settings[n] for n in own - flags.given if n in kept.settings}
    return replace(flags, given=flags.given | frozenset(old), **old)


def _load(*arguments: Any) -> "LoadedModel":
    """The thread that loads imports the engine, so that the prompt is there already."""
    from localspec.chat.models import open_model

    return open_model(*arguments)


def _load_first(
    config: "SessionConfig", record: "Record", notify: Notify, on_progress: Progress
) -> "LoadedModel":
    """On the first run: say which model would be better here, once the starter is there."""
    from localspec.forecast.recommend import better_than_starter

    loaded = _load(config, record, notify, on_progress)
    sentence = better_than_starter()
    if sentence:
        notify(sentence)
    return loaded


def _greeting(chat: "Chat", record: "Record", *, is_named: bool) -> Iterator[str]:
    """The first lines: model and seed, and on the first run a word about the starter."""
    from localspec.chat.archive import latest
    from localspec.chat.conversation import first_line

    sampling = chat.options.sampling
    seed = "" if sampling.is_greedy else f", seed {sampling.seed}"
    conversation = chat.conversation
    if conversation.turns:
        name = conversation.name or record.id
        yield f"{chat.config.model.name}{seed}; {count(len(conversation.turns), 'turn')} of {name}"
        if conversation.pending is not None:
            yield f"not answered yet: {first_line(conversation.pending)[:60]}; /regen answers it"
        return
    if not is_named and latest() is None:
        yield (
            "this is the starter, SmolLM2 135M Instruct (98 MB, Apache-2.0): quick, and good for"
            " trying things out rather than for facts; /help lists the commands"
        )
        return
    yield f"{chat.config.model.name}{seed}; /help lists the commands"


def _hold(conversation: "Chat", frontend: "Frontend", how: ChatFlags) -> None:
    """Talk until the end, and close the conversation. Raises typer.Exit where a pipe's messages
    were not all answered."""
    from localspec.chat.chat import close, leave
    from localspec.chat.commands.command import ChatState
    from localspec.chat.repl import repl

    conversation.loading  # noqa: B018 - starts now, in the background
    state = ChatState(conversation, frontend, NamedModels())
    try:
        repl(state, is_strict=how.prompt is not None)
    except BaseException:
        close(conversation)
        raise
    code = int(state.has_failed and not how.is_interactive)
    leave(conversation, code)
    if code:
        raise typer.Exit(code)


def _frontend(conversation: "Chat", how: ChatFlags, models: "NamedModels") -> "Frontend":
    from localspec.chat.frontend import PipeFrontend, is_dumb, typed_line

    if how.is_interactive and not is_dumb():
        from localspec.chat.terminal import Style, TerminalFrontend

        style = Style(is_plain=how.plain, shows_drafts=how.show_draft)
        return TerminalFrontend(conversation, models, style)
    from localspec.chat.program import ProgramFrontend

    conversation.notify = notify
    next_message = typed_line if how.is_interactive else _messages(how.prompt)
    if how.json_lines:
        frontend = ProgramFrontend(next_message)
        conversation.notify = frontend.say
        return frontend
    return PipeFrontend(next_message, notify)


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


class NamedModels:
    """Models by name, and `tune` for one of them."""

    def resolve(self, name: str) -> Path:
        """The model's file. Raises UserError or ModelError."""
        from localspec.registry.resolve import resolve

        return resolve(name)

    def draft_for(self, model: Path, name: str) -> str:
        """Who drafts for a named model, of what is here."""
        from localspec.session.config import draft_for

        return draft_for(model, name)

    def names(self) -> list[str]:
        """Models that have names."""
        from localspec.cli.options import model_names

        return model_names("")

    def check(self, config: "SessionConfig") -> None:
        """Raises UserError or ModelError where loading would fail."""
        from localspec.session.loading import plan_engines

        plan_engines(config)

    def tune(self, config: "SessionConfig", seconds: float | None) -> "SessionConfig":
        """Find better settings in another process, which has the machine to itself."""
        from localspec.session.profile import with_profile

        arguments = [sys.executable, "-P", "-m", "localspec", "tune", str(config.model)]
        if config.settings.ctx is not None:
            arguments += ["--ctx", str(config.settings.ctx)]
        if seconds is not None:
            arguments += ["--budget", f"{seconds:g}"]
        if subprocess.run(arguments, check=False).returncode != 0:
            raise LocalspecError("nothing was tuned: the settings are as they were")
        settings = with_profile(config.model, config.settings, frozenset(), notify)
        return replace(config, settings=settings)
