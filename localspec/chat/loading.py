"""A model that loads while the prompt already takes input, and who answers once it is there.

Nothing here imports the engine or a session: they are imported in the thread that loads.

A saved cache lets a conversation go on tomorrow without being read again. Each conversation has one
file, named after what the cache depends on (`state_key`). The file holds its own tokens; a prompt
reuses what it shares with them.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localspec import paths
from localspec.chat.archive import Record
from localspec.chat.remote import RemoteModel
from localspec.dialogue.transcript import Transcript
from localspec.errors import EngineError
from localspec.format import count
from localspec.notify import Notify, Progress

if TYPE_CHECKING:
    from localspec.session.reply_options import ReplyOptions
    from localspec.session.session import Session
    from localspec.session.session_config import SessionConfig

ENDING = ".state"
MAX_BEHIND_BYTES = 256_000_000
"""A quarter of a second of a fast disk; larger states are written once, on leaving."""
MAX_BYTES = 2_000_000_000
MAX_ALL_BYTES = 4_000_000_000


class LoadedModel:
    """A session with its transcript, its saved caches and the speed it should reach here.

    A small cache is written in the background while the user reads and types, a large one when
    they leave. The oldest files go when all together grow too large. `n_restored`: tokens of the
    conversation whose cache came from disk.
    """

    def __init__(self, session: "Session", config: "SessionConfig", record: Record) -> None:
        from localspec.forecast.forecast import Expectation  # noqa: PLC0415 - as all that answers
        from localspec.session.disk_cache import state_key  # noqa: PLC0415

        target, facts = session.plan.target, session.plan.facts
        self.session, self.config = session, config
        self.transcript = Transcript(session.prompts, facts.tokenizer.digest, session.markup)
        self.expectation = Expectation.of(target, facts)
        self._key = state_key(target)
        self._thread: threading.Thread | None = None
        self._saved: tuple[str, list[int]] | None = None
        self.n_restored = self.restore(record)

    @classmethod
    def open(
        cls, config: "SessionConfig", record: Record, notify: Notify, on_progress: Progress
    ) -> "LoadedModel":
        """Load a model and the saved cache of a conversation. Raises LocalspecError."""
        from localspec.session.chat_template import NO_TEMPLATE  # noqa: PLC0415 - as above
        from localspec.session.session import Session  # noqa: PLC0415

        session = Session.open(config, notify, on_progress, talks=True)
        try:
            if session.prompts.template is None:
                notify(NO_TEMPLATE)
            return cls(session, config, record)
        except BaseException:
            session.close()
            raise

    @property
    def name(self) -> str:
        return self.config.model.name

    @property
    def n_ctx(self) -> int:
        return self.session.n_ctx

    @property
    def n_held(self) -> int:
        """Tokens of the conversation that need not be read again."""
        return len(self.session.context.tokens)

    @property
    def described(self) -> dict[str, Any]:
        """For programs."""
        return {
            "model": str(self.config.model),
            "n_ctx": self.n_ctx,
            "speculation": self.session.speculation,
            "n_restored": self.n_restored,
            "load_s": self.session.load_s,
        }

    def rows(self) -> list[tuple[str, ...]]:
        """For /stats."""
        rows: list[tuple[str, ...]] = [("loading", f"{self.session.load_s:.2f} s")]
        if self.n_restored:
            rows.append(("restored", f"{self.n_restored:,} tokens from disk"))
        return rows

    def size_of(self, text: str) -> str | None:
        """How much of a conversation a text takes."""
        n_tokens = len(self.session.target.vocabulary.tokenize(text, add_special=False))
        return f"{count(n_tokens, 'token')} of {self.n_ctx:,}"

    def reading(self, n_prompt: int) -> str:
        """What an answer waits for."""
        n_held = min(self.n_held, n_prompt)
        return f"reading the conversation: {n_held:,} of {n_prompt:,} tokens"

    def effective(self, options: "ReplyOptions") -> "ReplyOptions":
        """With what the model's file recommends."""
        return self.session.effective(options)

    def restore(self, record: Record) -> int:
        """Load the cache of a conversation, if it was saved; returns its tokens, 0 for nothing."""
        path = self._path(record)
        if not path.exists() or not self.session.context.restore(path):
            return 0
        tokens = list(self.session.context.tokens)
        self._saved = record.id, tokens
        return len(tokens)

    def save_behind(self, record: Record) -> None:
        """Begin to save, if that is quick; `settle` before the next use of the context."""
        self.settle()
        if self.session.context.state_bytes <= MAX_BEHIND_BYTES:
            self._thread = threading.Thread(target=self._save, args=(record,), daemon=True)
            self._thread.start()

    def settle(self) -> None:
        """Wait until the context is free."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def save(self, record: Record) -> None:
        """Save now, unless that was done or is too large."""
        self.settle()
        if self.session.context.state_bytes <= MAX_BYTES:
            self._save(record)

    def close(self) -> None:
        """Free the models."""
        self.settle()
        self.session.close()

    def _save(self, record: Record) -> None:
        context = self.session.context
        if not context.tokens or self._saved == (record.id, context.tokens):
            return
        path = self._path(record)
        try:
            context.save(path)
        except EngineError:
            return  # a cache can be made again
        self._saved = record.id, list(context.tokens)
        for other in folder().glob(f"{record.id}.*{ENDING}"):
            if other != path:
                other.unlink(missing_ok=True)
        _trim(path)

    def _path(self, record: Record) -> Path:
        return folder() / f"{record.id}.{self._key}{ENDING}"


def folder() -> Path:
    """The folder of saved caches."""
    path = paths.cache_dir() / "conversations"
    path.mkdir(exist_ok=True)
    return path


def _trim(newest: Path) -> None:
    """Remove the oldest files until the rest is small enough."""
    files = sorted(folder().glob(f"*{ENDING}"), key=lambda path: path.stat().st_mtime_ns)
    total = sum(path.stat().st_size for path in files)
    for path in files:
        if total <= MAX_ALL_BYTES or path == newest:
            return
        total -= path.stat().st_size
        path.unlink(missing_ok=True)


Partner = LoadedModel | RemoteModel
"""Who answers: a model that is loaded here, or one that a server has."""


REPORTED_STEP = 0.01


class LoadingModel:
    """A model that loads in a thread of its own, while the prompt already takes input.

    `load` starts at once; it is given a function that it reports its progress to.
    """

    def __init__(
        self,
        load: Callable[[Progress], Partner],
        on_progress: Callable[[], None],
        on_end: Callable[[], None],
    ) -> None:
        self.fraction = 0.0
        self._load = load
        self._on_progress = on_progress
        self._on_end = on_end
        self._model = Future[Partner]()
        self._is_abandoned = False
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def is_done(self) -> bool:
        return self._model.done()

    @property
    def failed(self) -> bool:
        return self.is_done and self._model.exception() is not None

    def wait(self, seconds: float) -> bool:
        """Wait at most so long; whether loading has ended."""
        return bool(wait([self._model], seconds).done)

    def result(self) -> Partner:
        """What was loaded; raises what loading raised."""
        return self._model.result()

    def abandon(self) -> None:
        """Close what was loaded, or what will be: nobody waits for it any more."""
        self._is_abandoned = True
        if self.is_done and not self.failed:
            self.result().close()

    def _run(self) -> None:
        try:
            model = self._load(self._report)
            if self._is_abandoned:
                model.close()
            self._model.set_result(model)
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            self._model.set_exception(error)
        self._on_end()

    def _report(self, fraction: float) -> None:
        if fraction - self.fraction >= REPORTED_STEP or fraction >= 1.0:
            self.fraction = fraction
            self._on_progress()
