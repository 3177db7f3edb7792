"""`localspec chat`: talk to a model.

The first lines of a conversation.

Names of models to files, for a conversation that changes its model.
"""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from localspec.chat.archive import Record, latest
from localspec.chat.chat import Chat
from localspec.chat.figures import count
from localspec.cli.flatten import flatten
from localspec.cli.notify import notify
from localspec.cli.options import EngineFlags, ModelArgument, ReplyFlags
from localspec.cli.prompt import check_text
from localspec.errors import LocalspecError, UserError

if TYPE_CHECKING:
    from localspec.chat.chat import Chat
    from localspec.chat.frontend import Frontend
    from localspec.session import SessionConfig


_TALK = "Conversation"


@dataclass(frozen=True)
class ChatFlags:
    """Which conversation, and how it is held."""

    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt",
            "-p",
            metavar="TEXT",
            help="Answer this and leave; - reads standard input to its end.",
            rich_help_panel=_TALK,
        ),
    ] = None
    goes_on: Annotated[
        bool,
        typer.Option(
            "--continue", "-c", help="Go on with the last conversation.", rich_help_panel=_TALK
        ),
    ] = False
    session: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Go on with this conversation: a name, or an id or its beginning.",
            rich_help_panel=_TALK,
        ),
    ] = None
    no_save: Annotated[
        bool, typer.Option("--no-save", help="Keep nothing of it.", rich_help_panel=_TALK)
    ] = False
    when_full: Annotated[
        Literal["ask", "drop", "stop"],
        typer.Option(
            help="In a full context: ask, drop old turns, or stop the answer.",
            rich_help_panel=_TALK,
        ),
    ] = "ask"
    plain: Annotated[
        bool,
        typer.Option("--plain", help="Text as it comes, no Markdown.", rich_help_panel=_TALK),
    ] = False
    show_draft: Annotated[
        bool,
        typer.Option(
            "--show-draft", help="Colour tokens by who drafted them.", rich_help_panel=_TALK
        ),
    ] = False
    json_lines: Annotated[
        bool,
        typer.Option(
            "--json-lines", help="Events for programs, one JSON object a line.",
            rich_help_panel=_TALK,
        ),
    ] = False  # fmt: skip

    @property
    def is_interactive(self) -> bool:
        """Whether a person types and reads."""
        is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
        return is_terminal and self.prompt is None and not self.json_lines


@flatten
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
    from localspec.cli.chat_opening import open_chat, record_for

    record = record_for(how)
    conversation = open_chat(record, engine, flags, how, model)
    front = _front(conversation, how, NamedModels())
    if not how.json_lines and how.prompt is None:
        for text in greeting(conversation, record, is_named=model is not None):
            front.say(text)
    _hold(conversation, front, how)


def _hold(conversation: "Chat", front: "Frontend", how: ChatFlags) -> None:
    """Talk, and leave everything in order."""
    from localspec.chat.chat import close, leave
    from localspec.chat.commands.command import ChatState
    from localspec.chat.repl import repl

    conversation.loading  # noqa: B018 - begins now, behind the prompt
    try:
        repl(ChatState(conversation, front, NamedModels()), is_strict=how.prompt is not None)
    except BaseException:
        close(conversation)
        raise
    leave(conversation)


def _front(conversation: "Chat", how: ChatFlags, models: "NamedModels") -> "Frontend":
    from localspec.chat.lines import TypedLines, is_dumb

    if how.is_interactive and not is_dumb():
        from localspec.chat.terminal import Style, TerminalFrontend

        style = Style(is_plain=how.plain, shows_drafts=how.show_draft)
        return TerminalFrontend(conversation, models, style)
    from localspec.chat.lines import PipeFrontend
    from localspec.chat.program import ProgramFrontend

    conversation.notify = notify
    messages = TypedLines() if how.is_interactive else _messages(how.prompt)
    if how.json_lines:
        front = ProgramFrontend(messages)
        conversation.notify = front.say
        return front
    return PipeFrontend(messages, notify)


def _messages(prompt: str | None) -> Iterator[str]:
    """The prompt, or a line each. A line that is no text raises when it is asked for."""
    if prompt is not None:
        text = sys.stdin.read() if prompt == "-" else prompt
        checked = check_text("the prompt", text)
        if not checked.strip():
            raise UserError("the prompt is empty: give some text")
        return iter([checked])
    return _Lines()


class _Lines:
    """Lines of standard input; unlike a generator it goes on after one that is no text."""

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = sys.stdin.readline()
        if not line:
            raise StopIteration
        return check_text("the line", line)


def greeting(chat: Chat, record: Record, *, is_named: bool) -> Iterator[str]:
    """What answers here; on the first run, what it is and how to get a better one."""
    sampling = chat.options.sampling
    seed = "" if sampling.is_greedy else f", seed {sampling.seed}"
    conversation = chat.conversation
    if conversation.turns:
        name = conversation.name or record.id
        yield f"{chat.config.model.name}{seed}; {count(len(conversation.turns), 'turn')} of {name}"
        if conversation.pending is not None:
            first_line = conversation.pending.strip().partition("\n")[0]
            yield f"not answered yet: {first_line[:60]}; /regen answers it"
        return
    if not is_named and latest() is None:
        yield from _first_run()
        return
    yield f"{chat.config.model.name}{seed}; /help lists the commands"


def _first_run() -> Iterator[str]:
    """The first of two lines; the other one, on what is better, comes when the model is there."""
    yield (
        "this is the starter, SmolLM2 135M Instruct (98 MB, Apache-2.0): quick, and good for trying"
        " things out rather than for facts; /help lists the commands"
    )


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
        from localspec.cli.completion import model_names

        return model_names("")

    def tune(self, config: "SessionConfig", seconds: float | None) -> "SessionConfig":
        """Find better settings in a process of its own, which has the machine to itself."""
        from localspec.cli.notify import notify
        from localspec.session.profile import with_profile

        command = [sys.executable, "-m", "localspec", "tune", str(config.model)]
        if config.n_ctx is not None:
            command += ["--ctx", str(config.n_ctx)]
        if seconds is not None:
            command += ["--budget", f"{seconds:g}"]
        if subprocess.run(command, check=False).returncode != 0:
            raise LocalspecError("nothing was tuned: the settings are as they were")
        return with_profile(config, frozenset(), notify)
