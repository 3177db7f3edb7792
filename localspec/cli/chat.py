"""`localspec chat`: talk to a model."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from localspec.cli.flatten import flatten
from localspec.cli.options import EngineFlags, ModelArgument, ReplyFlags
from localspec.cli.prompt import check_text
from localspec.cli.talk import talk
from localspec.errors import UserError

if TYPE_CHECKING:
    from localspec.chat.chat import Chat
    from localspec.chat.front import Front
    from localspec.cli.chat_models import NamedModels

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
    from localspec.cli.chat_greeting import greeting
    from localspec.cli.chat_models import NamedModels
    from localspec.cli.chat_opening import open_chat, record_for

    record = record_for(how)
    conversation = open_chat(record, engine, flags, how, model)
    front = _front(conversation, how, NamedModels())
    if not how.json_lines and how.prompt is None:
        for text in greeting(conversation, record, is_named=model is not None):
            front.say(text)
    _hold(conversation, front, how)


def _hold(conversation: "Chat", front: "Front", how: ChatFlags) -> None:
    """Talk, and leave everything in order."""
    from localspec.chat.commands.base import Desk
    from localspec.chat.leaving import close, leave
    from localspec.chat.repl import repl
    from localspec.cli.chat_models import NamedModels

    conversation.loading  # noqa: B018 - begins now, behind the prompt
    try:
        repl(Desk(conversation, front, NamedModels()), is_strict=how.prompt is not None)
    except BaseException:
        close(conversation)
        raise
    leave(conversation)


def _front(conversation: "Chat", how: ChatFlags, models: "NamedModels") -> "Front":
    from localspec.chat.dumb import TypedLines, is_dumb

    if how.is_interactive and not is_dumb():
        from localspec.chat.terminal import Style, TerminalFront

        style = Style(is_plain=how.plain, shows_drafts=how.show_draft)
        return TerminalFront(conversation, models, style)
    from localspec.chat.pipe import PipeFront
    from localspec.chat.program import ProgramFront

    conversation.talk = talk
    messages = TypedLines() if how.is_interactive else _messages(how.prompt)
    if how.json_lines:
        front = ProgramFront(messages)
        conversation.talk = front.say
        return front
    return PipeFront(messages, talk)


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
