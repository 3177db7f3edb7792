"""A conversation at a terminal."""

import atexit
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from time import monotonic

from rich.table import Table
from rich.text import Text

from localspec import paths
from localspec.chat.answering import RoomDecision, Shortage
from localspec.chat.chat import Chat
from localspec.chat.conversation import Conversation
from localspec.chat.editor import Editor
from localspec.chat.figures import SEPARATOR, Figures, context_text, line
from localspec.chat.frontend import AnswerView, Frontend
from localspec.chat.loading import LoadedModel, LoadingModel, Partner
from localspec.chat.repl import commands_of
from localspec.chat.tty import Waiting, WatchedView, quiet_terminal, terminal_size
from localspec.chat.views import DraftsView, PlainThoughtView, ScreenView, screen_console, warm_up
from localspec.format import percent

TWICE_S = 2.0
"""Two Ctrl-C within it leave."""


@dataclass(frozen=True, slots=True)
class Style:
    """Answers are Markdown, plain text, or tokens coloured by who drafted them."""

    is_plain: bool = False
    shows_drafts: bool = False


class TerminalFrontend(Frontend):
    """The prompt is below and answers above; notes are dim."""

    can_edit = True

    def __init__(self, chat: Chat, style: Style) -> None:
        self._chat = chat
        self._style = style
        self._console = screen_console()
        history = paths.data_dir() / "chat-history" if chat.record.is_kept else None
        self._editor = Editor(commands_of(chat), history, self._status, lambda: chat.has_failed)
        self._quiet = ExitStack()
        atexit.register(self._quiet.close)
        self._stopped_at = 0.0
        self._waiting: Waiting | None = None
        self._held: tuple[Conversation | None, int | None] = None, 0
        chat.notify = self.say
        chat.on_loaded = self._loaded
        chat.on_progress = self._editor.refresh

    def read(self, draft: str) -> str:
        """The next message; the second Ctrl-C in a short time leaves."""
        while True:
            # Keys are echoed in the line alone. What it finds is what it leaves: until the answer
            # begins none is echoed, either.
            self._keep_quiet()
            try:
                return self._editor.read(draft)
            except KeyboardInterrupt:
                if monotonic() - self._stopped_at < TWICE_S:
                    raise EOFError from None
                self._stopped_at = monotonic()
                self.say("Ctrl-C again leaves; so does Ctrl-D")
            except EOFError:
                self._quiet.close()
                if self._chat.has_failed:
                    self._chat.loading.result()
                raise

    def wait(self, loading: LoadingModel) -> Partner:
        """The model, with progress until it is there."""
        waiting = self._waiting = Waiting(sys.stdout, self._progress)
        try:
            self._keep_quiet()
            while not loading.wait(0.1):
                pass
        finally:
            self._waiting = None
            waiting.stop()
        return loading.result()

    def view(self, loaded: Partner) -> AnswerView:
        """Markdown, drafts or plain text, after a line that says what is waited for."""
        return WatchedView(
            self._inner(loaded),
            lambda n: Waiting(sys.stdout, lambda: loaded.reading(n)),
            self._quiet,
        )

    def finished(self, figures: Figures, *, is_first: bool) -> None:
        """Show the line below, broken between its parts."""
        self._held = self._chat.conversation, figures.n_context
        if figures.finish_reason == "interrupted":
            self._stopped_at = monotonic()
        self._console.width = terminal_size().columns
        text = line(figures, with_first_token=is_first)
        for each in [*_wrapped(text, self._console.width - 1), ""]:
            self._console.print(Text(each, style="dim"), no_wrap=True)

    def say(self, text: str) -> None:
        """Show a dim note, above the prompt if there is one."""

        def write() -> None:
            self._console.width = terminal_size().columns
            self._console.print(Text(text, style="dim"))

        waiting = self._waiting
        if waiting is not None:
            waiting.above(write)
        elif not self._editor.print_above(write):
            write()

    def table(self, rows: Sequence[tuple[str, ...]]) -> None:
        """Show columns, which wrap in a narrow terminal."""
        table = Table.grid(padding=(0, 2))
        for i in range(len(rows[0])):
            table.add_column(style="dim" if i else "", overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        self._console.width = terminal_size().columns
        self._console.print(table)

    def decide(self, found: Shortage) -> RoomDecision:
        """Ask what happens to old turns."""
        self._quiet.close()
        self.say(
            f"The context is nearly full: {found.n_prompt:,} of {found.n_ctx:,} tokens, so an"
            f" answer has {max(0, found.n_left):,}."
        )
        choices: dict[str, RoomDecision] = {"c": "cancel"}
        if found.can_drop:
            choices["d"] = "drop"
            self.say(f"d  drop the oldest {found.n_droppable} turns from what the model sees")
        if found.n_left > 0:
            choices["s"] = "stop"
            self.say("s  answer, and stop where the context is full")
        self.say("c  cancel, and keep the message for editing")
        while True:
            try:
                key = input(f"{'/'.join(sorted(choices, reverse=True))}? ").strip().lower()[:1]
            except EOFError:
                return "cancel"
            if key in choices:
                return choices[key]

    def _keep_quiet(self) -> None:
        self._quiet.close()  # one at a time: a suspended chat gives back what the shell had
        self._quiet.enter_context(quiet_terminal())

    def _inner(self, loaded: Partner) -> AnswerView:
        if self._style.shows_drafts:
            # Who drafted a token is known of a model that is loaded here.
            assert isinstance(loaded, LoadedModel), "the command line refuses it"
            session, options = loaded.session, self._chat.options
            return DraftsView(
                sys.stdout, self._console, lambda o: session.parser(options, session.markup, o)
            )
        kind = PlainThoughtView if self._style.is_plain else ScreenView
        return kind(sys.stdout, terminal_size, self._console)

    def _status(self) -> str:
        """The line at the bottom."""
        if not self._chat.loading.is_done:
            return self._progress()
        loaded = self._chat.loaded
        if loaded is None:
            return ""
        conversation, n_context = self._held
        if conversation is not self._chat.conversation:
            n_context = loaded.n_held
        context = f"context {context_text(n_context, loaded.n_ctx)}"
        return SEPARATOR.join([loaded.name, context, "/help"])

    def _progress(self) -> str:
        return f"loading {self._chat.model_name} {percent(self._chat.loading.fraction)}"

    def _loaded(self) -> None:
        """Called by the loading thread: show it, or leave where loading failed."""
        if self._chat.has_failed:
            self._editor.stop()
        else:
            self._editor.refresh()
            warm_up()


def _wrapped(text: str, n_columns: int) -> list[str]:
    """Lines of whole parts."""
    lines: list[str] = []
    for part in text.split(SEPARATOR):
        if lines and len(lines[-1]) + len(SEPARATOR) + len(part) <= n_columns:
            lines[-1] += SEPARATOR + part
        else:
            lines.append(part)
    return lines
