"""`localspec chat`: talk to a model."""

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import typer

from localspec.cli.chat_opening import ChatFlags, open_chat, record_for
from localspec.cli.flags import EngineFlags, ReplyFlags
from localspec.cli.notify import notify
from localspec.cli.options import ModelArgument, command
from localspec.cli.prompts import check_text
from localspec.errors import UserError
from localspec.format import count

if TYPE_CHECKING:
    from localspec.chat.archive import Record
    from localspec.chat.chat import Chat
    from localspec.chat.frontend import Frontend


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
    from localspec.session.asking import SessionConfig

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
    from localspec.chat.frontend import Frontend, is_dumb, typed_line

    if how.is_interactive and not is_dumb():
        from localspec.chat.terminal import Style, TerminalFrontend

        style = Style(is_plain=how.plain, shows_drafts=how.show_draft)
        return TerminalFrontend(conversation, style)
    from localspec.chat.frontend import ProgramFrontend

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
