"""Completion of commands, of what they take, and of files."""

from collections.abc import Iterable

from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document

from localspec.chat.commands.base import Command, Models
from localspec.chat.commands.table import COMMANDS


class CommandCompleter(Completer):
    """For lines that begin with a slash; other lines are the user's own."""

    def __init__(self, models: Models) -> None:
        self._models = models
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
            for command in COMMANDS:
                if command.name.startswith(name):
                    yield Completion(command.name, -len(name), f"/{command.name}", command.help)
            return
        command = next((command for command in COMMANDS if command.name == name), None)
        if command:
            yield from self._arguments(command, argument, complete_event)

    def _arguments(
        self, command: Command, argument: str, event: CompleteEvent
    ) -> Iterable[Completion]:
        word = argument.rpartition(" ")[2]
        for choice in command.choices(self._models):
            if choice.startswith(word):
                yield Completion(choice, -len(word))
        if command.takes_path or (command.name in ("model", "draft") and "/" in word):
            yield from self._paths.get_completions(Document(argument, len(argument)), event)
