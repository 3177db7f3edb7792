"""`localspec chat`: talk to a model."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from localspec.cli.chat_opening import greeting, open_chat, record_for
from localspec.cli.flags import EngineFlags, ReplyFlags, check_text
from localspec.cli.notify import notify
from localspec.cli.options import ModelArgument, command, option
from localspec.errors import LocalspecError, UserError

if TYPE_CHECKING:
    from localspec.chat.chat import Chat
    from localspec.chat.frontend import Frontend
    from localspec.session import SessionConfig

_TALK = "Conversation"


@dataclass(frozen=True)
class ChatFlags:
    """Which conversation, and how it is held."""

    prompt: str | None = option(
        None, "Answer this and leave; - reads standard input to its end.", "--prompt", "-p",
        metavar="TEXT", panel=_TALK,
    )  # fmt: skip
    goes_on: bool = option(
        False, "Go on with the last conversation.", "--continue", "-c", panel=_TALK
    )
    session: str | None = option(
        None, "Go on with this conversation: a name, or an id or its beginning.",
        metavar="NAME", panel=_TALK,
    )  # fmt: skip
    no_save: bool = option(False, "Keep nothing of it.", "--no-save", panel=_TALK)
    when_full: Literal["ask", "drop", "stop"] = option(
        "ask", "In a full context: ask, drop old turns, or stop the answer.", panel=_TALK
    )
    plain: bool = option(False, "Text as it comes, no Markdown.", "--plain", panel=_TALK)
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
    engine: EngineFlags,
    flags: ReplyFlags,
    how: ChatFlags,
    model: ModelArgument = None,
) -> None:
    """Talk to a model.

    localspec chat

    localspec chat model.gguf --system "Answer in one sentence."

    localspec chat --continue

    localspec chat -p "Why is the sky blue?" --json-lines
    """
    record = record_for(how.session, goes_on=how.goes_on, is_kept=not how.no_save)
    conversation = open_chat(record, engine, flags, model, how.when_full)
    frontend = _frontend(conversation, how, NamedModels())
    if not how.json_lines and how.prompt is None:
        for text in greeting(conversation, record, is_named=model is not None):
            frontend.say(text)
    _hold(conversation, frontend, how)


def _hold(conversation: "Chat", frontend: "Frontend", how: ChatFlags) -> None:
    """Talk, and leave everything in order."""
    from localspec.chat.chat import close, leave
    from localspec.chat.commands.command import ChatState
    from localspec.chat.repl import repl

    conversation.loading  # noqa: B018 - begins now, behind the prompt
    try:
        repl(ChatState(conversation, frontend, NamedModels()), is_strict=how.prompt is not None)
    except BaseException:
        close(conversation)
        raise
    leave(conversation)


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
    """What the registry knows, and what `tune` found."""

    def resolve(self, name: str) -> Path:
        """The model's file. Raises UserError or ModelError."""
        from localspec.registry.resolve import resolve

        return resolve(name)

    def draft_of(self, name: str) -> Path | None:
        """The draft that goes with a named model, if it is here."""
        from localspec.registry.resolve import draft_of

        return draft_of(name)

    def names(self) -> list[str]:
        """Models that have names."""
        from localspec.cli.options import model_names

        return model_names("")

    def tune(self, config: "SessionConfig", seconds: float | None) -> "SessionConfig":
        """Find better settings in a process of its own, which has the machine to itself."""
        from localspec.session.profile import with_profile

        arguments = [sys.executable, "-m", "localspec", "tune", str(config.model)]
        if config.settings.ctx is not None:
            arguments += ["--ctx", str(config.settings.ctx)]
        if seconds is not None:
            arguments += ["--budget", f"{seconds:g}"]
        if subprocess.run(arguments, check=False).returncode != 0:
            raise LocalspecError("nothing was tuned: the settings are as they were")
        settings = with_profile(config.model, config.settings, frozenset(), notify)
        return replace(config, settings=settings)
