"""The line that the user types into: history, several lines, completion, and what goes on below.

Enter sends, unless the text asks for more: a backslash at its end, or an open triple quote.
"""

from collections.abc import Callable

from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.filters import Condition, completion_is_selected, has_completions
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.styles import Style

from localspec import paths
from localspec.chat.commands.base import Models
from localspec.chat.completion import CommandCompleter

PROMPT, CONTINUED = "> ", ". "
QUOTES = '"""'
STYLE = Style.from_dict(
    {"bottom-toolbar": "noreverse", "bottom-toolbar.text": "fg:ansibrightblack"}
)


class Editor:
    """`status` is the line at the bottom, asked again at every key and every `refresh`."""

    def __init__(self, models: Models, status: Callable[[], str]) -> None:
        self._session: PromptSession[str] = PromptSession(
            history=FileHistory(str(paths.data_dir() / "chat-history")),
            completer=CommandCompleter(models),
            complete_while_typing=Condition(self._is_command),
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
        """One message. EOFError for Ctrl-D; KeyboardInterrupt for Ctrl-C on an empty line."""
        while True:
            try:
                return _unquoted(self._session.prompt(PROMPT, default=draft))
            except KeyboardInterrupt:
                if not self._session.default_buffer.text:
                    raise
                draft = ""

    def refresh(self) -> None:
        """Draw the line at the bottom again; from any thread."""
        self._session.app.invalidate()

    def stop(self) -> None:
        """Make `read` raise EOFError; from any thread."""
        app = self._session.app
        if app.is_running and app.loop:
            app.loop.call_soon_threadsafe(lambda: app.exit(exception=EOFError))

    def print_above(self, write: Callable[[], None]) -> bool:
        """Have something written above the line; False where nothing is being read."""
        app = self._session.app
        if not (app.is_running and app.loop):
            return False
        app.loop.call_soon_threadsafe(lambda: run_in_terminal(write))
        return True

    def _is_command(self) -> bool:
        return self._session.default_buffer.text.startswith("/")


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter", filter=~(has_completions & completion_is_selected))
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

    @keys.add("enter", filter=has_completions & completion_is_selected)
    def _choose(event: KeyPressEvent) -> None:
        event.current_buffer.complete_state = None

    @keys.add("escape", "enter")
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


def _unquoted(text: str) -> str:
    stripped = text.strip()
    if (
        len(stripped) >= 2 * len(QUOTES)
        and stripped.startswith(QUOTES)
        and stripped.endswith(QUOTES)
    ):
        return stripped[len(QUOTES) : -len(QUOTES)].strip("\n")
    return text
