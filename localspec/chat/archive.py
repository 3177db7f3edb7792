"""Conversations on disk: a file each, one JSON object a line; and exports of them.

Each line is one `write` to a file opened for appending, and is forced to disk. So a kill -9 or a
power cut loses at most the line that was being written. `claim` cuts off such a torn end before
anything is added.
"""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Self

from localspec import paths
from localspec.chat.conversation import Conversation, Event, first_line, of_json, to_json
from localspec.dialogue.template import Message
from localspec.dialogue.transcript import Answer, message_of
from localspec.errors import LocalspecError, UserError
from localspec.store import alone

ENDING = ".jsonl"
FORMAT = 1


class Record:
    """One conversation's file; it appears with the first event."""

    is_kept: ClassVar[bool] = True
    """Whether anything is written at all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None
        self._lock = ExitStack()

    @classmethod
    def new(cls) -> Self:
        """A file that does not exist yet, named after the time."""
        now = datetime.now().astimezone()
        return cls(folder() / f"{now:%Y-%m-%d-%H%M%S}-{secrets.token_hex(2)}{ENDING}")

    @property
    def id(self) -> str:
        return self.path.name.removesuffix(ENDING)

    def add(self, event: Event) -> None:
        """Append one event and force it to disk. LocalspecError where that fails."""
        try:
            is_new = not self.path.exists()
            file = self._open()
            if is_new:
                _append(file, {"event": "session", "format": FORMAT, "created": now()})
            _append(file, to_json(event))
        except OSError as error:
            raise LocalspecError(
                f"the conversation cannot be saved to {self.path}"
                f" ({error.strerror or error}): --no-save talks without keeping it"
            ) from error

    def events(self) -> list[Event]:
        """Every saved event; other lines are passed over."""
        known = (of_json(document) for document in _documents(self.path))
        return [event for event in known if event is not None]

    def claim(self) -> None:
        """Lock the file for this process, and cut off a line that was never finished.

        UserError where another chat has it open.
        """
        file = self._open()
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(file, whole)

    def close(self) -> None:
        """Unlock the file."""
        if self._file is not None:
            os.close(self._file)
            self._lock.close()
            self._file = None

    def _open(self) -> int:
        if self._file is None:
            taken = f"{self.id} is open in another chat: leave that one, or start a new one"
            self._lock.enter_context(alone(self.path, taken))
            self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        return self._file


class NullRecord(Record):
    """A conversation that is not saved."""

    is_kept = False

    def add(self, event: Event) -> None:
        """Nothing is written."""


@dataclass(frozen=True, slots=True)
class SavedConversation:
    """A conversation in the list; `changed`: seconds since the epoch."""

    record: Record
    conversation: Conversation
    changed: float

    @property
    def title(self) -> str:
        """The first message's first line."""
        turns = self.conversation.turns
        return first_line(turns[0].question) if turns else ""


def _append(file: int, document: dict[str, Any]) -> None:
    line = json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n"
    os.write(file, line.encode(errors="replace"))
    os.fsync(file)


def folder() -> Path:
    """The folder of all conversations."""
    path = paths.data_dir() / "sessions"
    path.mkdir(exist_ok=True)
    return path


def now() -> str:
    """The time, as files have it."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def listed() -> list[SavedConversation]:
    """All conversations with a turn, the newest first."""
    found: list[SavedConversation] = []
    for path in _newest_first():
        record = Record(path)
        conversation = Conversation.of(record.events())
        if conversation.turns:
            found.append(SavedConversation(record, conversation, path.stat().st_mtime))
    return found


def latest() -> Record | None:
    """The conversation with a turn that was changed last."""
    records = (Record(path) for path in _newest_first())
    return next((r for r in records if Conversation.of(r.events()).turns), None)


def find(name: str) -> Record:
    """A conversation by name, id or the beginning of an id. UserError unless exactly one fits."""
    every = listed()
    exact = [one for one in every if name in (one.conversation.name, one.record.id)]
    close = exact[:1] or [one for one in every if one.record.id.startswith(name)]
    if len(close) != 1:
        problem = "there is no conversation" if not close else "several conversations begin with"
        raise UserError(f"{problem} {name!r}: /sessions lists them")
    return close[0].record


def _newest_first() -> list[Path]:
    files = folder().glob(f"*{ENDING}")
    return sorted(files, key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)


def _documents(path: Path) -> Iterator[Any]:
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            continue


def export_text(conversation: Conversation, ending: str) -> str:
    """The whole conversation, dropped turns included. UserError for another ending."""
    if ending in (".md", ".markdown"):
        return _markdown(conversation)
    if ending == ".json":
        document = {
            "name": conversation.name,
            "settings": conversation.settings,
            "messages": _messages(conversation),
            "figures": [turn.answer.figures for turn in conversation.turns if turn.answer],
        }
        return json.dumps(document, ensure_ascii=False, indent=2) + "\n"
    raise UserError(f"the file's ending says how to export, .md or .json, not {ending!r}")


def _markdown(conversation: Conversation) -> str:
    parts = [f"# {conversation.name or 'Conversation'}"]
    if conversation.system:
        parts.append(f"**System:** {conversation.system}")
    for turn in conversation.turns:
        parts.append(f"## You\n\n{turn.question}")
        if turn.answer is not None:
            parts.append(f"## Model\n\n{_with_thought(turn.answer)}")
    return "\n\n".join(parts) + "\n"


def _with_thought(answer: Answer) -> str:
    """The answer, below its thought as a quotation."""
    thought = answer.thought.strip()
    quoted = [f"> {line}".rstrip() for line in thought.split("\n")] if thought else []
    return "\n".join([*quoted, *([""] if quoted else []), answer.text.strip()]).rstrip()


def _messages(conversation: Conversation) -> list[Message]:
    """All that was said, empty answers too."""
    said = [Message(role="system", content=conversation.system)] if conversation.system else []
    for turn in conversation.turns:
        said.append(Message(role="user", content=turn.question))
        if turn.answer is not None:
            said.append(message_of(turn.answer))
    return said
