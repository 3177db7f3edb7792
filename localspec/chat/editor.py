"""The line that the user types into, with history, completion, and a line of status below.

Enter sends the message, unless it ends with a backslash or has an open triple quote.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import FileHistory, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.styles import Style

from localspec.chat.repl import Command


class TypedBefore(FileHistory):
    """What was typed in earlier chats. A file that cannot be written, on a full disk say, is no
    reason to show a traceback in place of the prompt: this chat remembers its own lines."""

    def store_string(self, string: str) -> None:
        """Append it, where that is possible."""
        with suppress(OSError):
            super().store_string(string)


class CommandCompleter(Completer):
    """Completes commands, what they take, and files; other lines are the user's own."""

    def __init__(self, commands: Sequence[Command]) -> None:
        self._commands = commands
        self._paths = PathCompleter(expanduser=True)

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        """What could follow before the cursor."""
        line = document.text_before_cursor
        if not line.startswith("/") or "\n" in line:
            return
        name, space, argument = line[1:].partition(" ")
        if not space:
            for command in self._commands:
                if command.name.startswith(name):
                    yield Completion(command.name, -len(name), f"/{command.name}", command.help)
            return
        command = next((command for command in self._commands if command.name == name), None)
        if command:
            yield from self._arguments(command, argument, complete_event)

    def _arguments(
        self, command: Command, argument: str, event: CompleteEvent
    ) -> Iterable[Completion]:
        word = argument.rpartition(" ")[2]
        for choice in command.choices():
            if choice.startswith(word):
                yield Completion(choice, -len(word))
        if command.takes_path or (command.name in ("model", "draft") and "/" in word):
            yield from self._paths.get_completions(Document(argument, len(argument)), event)


PROMPT, CONTINUED = "> ", ". "
QUOTES = '"""'
STYLE = Style.from_dict(
    {"bottom-toolbar": "noreverse", "bottom-toolbar.text": "fg:ansibrightblack"}
)


class Editor:
    """Reads messages; `status` makes the line at the bottom anew at every key and `refresh`.

    `is_over`: whether there is nothing left to read for.
    """

    def __init__(
        self,
        commands: Sequence[Command],
        history: Path | None,
        status: Callable[[], str],
        is_over: Callable[[], bool],
    ) -> None:
        self._is_over = is_over
        self._session: PromptSession[str] = PromptSession(
            history=TypedBefore(str(history)) if history else InMemoryHistory(),
            completer=CommandCompleter(commands),
            complete_while_typing=Condition(
                lambda: self._session.default_buffer.text.startswith("/")
            ),
            multiline=True,
            key_bindings=_keys(),
            prompt_continuation=CONTINUED,
            bottom_toolbar=status,
            style=STYLE,
            enable_suspend=True,
            enable_open_in_editor=True,
            reserve_space_for_menu=5,
        )

    def read(self, draft: str) -> str:
        """One message. EOFError for Ctrl-D, KeyboardInterrupt for Ctrl-C on an empty line."""
        while True:
            try:
                return _unquoted(self._session.prompt(PROMPT, default=draft, pre_run=self._look))
            except KeyboardInterrupt:
                if not self._session.default_buffer.text:
                    raise
                draft = ""

    def refresh(self) -> None:
        """Draw the line at the bottom again; from any thread."""
        self._session.app.invalidate()

    def stop(self) -> None:
        """Make `read` raise EOFError if `is_over`; from any thread."""
        app = self._session.app
        if app.is_running and app.loop:
            app.loop.call_soon_threadsafe(self._look)

    def print_above(self, write: Callable[[], None]) -> bool:
        """Have `write` called above the line; False where nothing is being read."""
        app = self._session.app
        if not (app.is_running and app.loop):
            return False
        app.loop.call_soon_threadsafe(lambda: run_in_terminal(write))
        return True

    def _look(self) -> None:
        app = self._session.app
        if self._is_over() and app.is_running and not app.is_done:
            app.exit(exception=EOFError)


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def _send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        text = buffer.document.text_before_cursor
        if buffer.document.is_cursor_at_the_end and text.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        elif text.lstrip().startswith(QUOTES) and text.count(QUOTES) % 2:
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


def _unquoted(text: str) -> str:
    match = re.fullmatch(f"{QUOTES}(.*){QUOTES}", text.strip(), re.DOTALL)
    return match[1].strip("\n") if match else text
