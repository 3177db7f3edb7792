"""A loaded model with all that a conversation needs of it, and its caches on disk.

A saved cache lets a conversation go on tomorrow without being read again. Each conversation has one
file, named after what the cache depends on (`state_key`). The file holds its own tokens; a prompt
reuses what it shares with them.
"""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from localspec import paths
from localspec.chat.archive import Record
from localspec.dialogue.transcript import Transcript
from localspec.engine.base import EngineConfig
from localspec.engine.health import engine_fingerprint
from localspec.errors import EngineError
from localspec.forecast.forecast import Expectation
from localspec.model.facts import ModelFacts
from localspec.model.identity import fingerprint
from localspec.notify import Progress
from localspec.session import Session, SessionConfig
from localspec.settings import ROWS


def state_key(config: EngineConfig) -> str:
    """Equal for engines that can go on from each other's saved sequences. OSError without files.

    Weights, cache types, the kernels' layout and the engine build count; the size of the context
    and the number of threads do not. LLAMA_ATTN_ROT_DISABLE decides whether a quantized cache is
    rotated, which no state file records (llama.cpp PR 21038).
    """
    settings = config.settings
    parts = (
        fingerprint(config.model),
        *(getattr(settings, name) for name, row in ROWS.items() if not row.is_exact),
        engine_fingerprint(),
        os.environ.get("LLAMA_ATTN_ROT_DISABLE", ""),
    )
    return sha256(repr(parts).encode()).hexdigest()[:16]


ENDING = ".state"
MAX_BEHIND_BYTES = 256_000_000
"""A quarter of a second of a fast disk; larger states are written once, on leaving."""
MAX_BYTES = 2_000_000_000
MAX_ALL_BYTES = 4_000_000_000


class States:
    """Saved caches for one loaded session.

    A small cache is written in the background while the user reads and types, a large one when
    they leave. The oldest files go when all together grow too large.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._key = state_key(session.plan.target)
        self._thread: threading.Thread | None = None
        self._saved: tuple[str, list[int]] | None = None
        self.problem: str | None = None

    def restore(self, record: Record) -> int:
        """Load what was saved of a conversation; how many tokens it has, 0 for nothing."""
        path = self._path(record)
        if not path.exists() or not self._session.context.restore(path):
            return 0
        tokens = self._session.context.tokens
        self._saved = record.id, list(tokens)
        return len(tokens)

    def save_behind(self, record: Record) -> None:
        """Start to save, if that is quick; `settle` before the next use of the context."""
        self.settle()
        if self._session.context.state_bytes <= MAX_BEHIND_BYTES:
            self._thread = threading.Thread(target=self._save, args=(record,), daemon=True)
            self._thread.start()

    def settle(self) -> None:
        """Wait until the context is free."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def save(self, record: Record) -> None:
        """Save now, unless that was done or would be too large."""
        self.settle()
        if self._session.context.state_bytes <= MAX_BYTES:
            self._save(record)

    def _save(self, record: Record) -> None:
        context = self._session.context
        if not context.tokens or self._saved == (record.id, context.tokens):
            return
        path = self._path(record)
        try:
            context.save(path)
        except EngineError as error:
            self.problem = str(error)
            return
        self._saved = record.id, list(context.tokens)
        for other in folder().glob(f"{record.id}.*{ENDING}"):
            if other != path:
                other.unlink(missing_ok=True)
        _trim(path)

    def _path(self, record: Record) -> Path:
        return folder() / f"{record.id}.{self._key}{ENDING}"


def folder() -> Path:
    """Where saved caches are: they can be made again."""
    path = paths.cache_dir() / "conversations"
    path.mkdir(exist_ok=True)
    return path


def _trim(newest: Path) -> None:
    """Remove the oldest states until the rest is not too large."""
    files = sorted(folder().glob(f"*{ENDING}"), key=lambda path: path.stat().st_mtime_ns)
    total = sum(path.stat().st_size for path in files)
    for path in files:
        if total <= MAX_ALL_BYTES or path == newest:
            return
        total -= path.stat().st_size
        path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A session with its transcript, its saved states and what it should reach here.

    `n_restored`: tokens of the conversation whose cache came from disk.
    """

    session: Session
    config: SessionConfig
    facts: ModelFacts
    transcript: Transcript
    states: States
    expectation: Expectation | None
    n_restored: int

    def close(self) -> None:
        """Free the models."""
        self.states.settle()
        self.session.close()


def open_model(
    config: SessionConfig,
    record: Record,
    notify: Callable[[str], None],
    on_progress: Callable[[float], None],
) -> LoadedModel:
    """Load, and restore the conversation's cache where it was saved. Raises LocalspecError."""
    session = Session.open(config, notify, on_progress)
    try:
        facts = session.plan.facts
        states = States(session)
        return LoadedModel(
            session=session,
            config=config,
            facts=facts,
            transcript=Transcript(session.prompts, facts.tokenizer.digest),
            states=states,
            expectation=Expectation.of(session.plan.target, facts),
            n_restored=states.restore(record),
        )
    except BaseException:
        session.close()
        raise


REPORTED_STEP = 0.01


class LoadingModel:
    """A model that loads in a thread of its own, while the prompt already takes input.

    `load` starts at once; it is given a function that it reports its progress to.
    """

    def __init__(
        self,
        load: Callable[[Progress], LoadedModel],
        on_progress: Callable[[], None],
        on_end: Callable[[], None],
    ) -> None:
        self.fraction = 0.0
        self._load = load
        self._on_progress = on_progress
        self._on_end = on_end
        self._result: LoadedModel | None = None
        self._error: BaseException | None = None
        self._is_abandoned = False
        self._done = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def is_done(self) -> bool:
        return self._done.is_set()

    @property
    def failed(self) -> bool:
        return self._error is not None

    def wait(self, seconds: float) -> bool:
        """Wait at most so long; whether it has ended."""
        return self._done.wait(seconds)

    def result(self) -> LoadedModel:
        """What was loaded; raises what loading raised."""
        self._done.wait()
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    def abandon(self) -> None:
        """Nobody waits for it any more: what was loaded is closed when it is there."""
        self._is_abandoned = True
        if self.is_done and self._result is not None:
            self._result.close()

    def _run(self) -> None:
        try:
            self._result = self._load(self._report)
            if self._is_abandoned:
                self._result.close()
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            self._error = error
        self._done.set()
        self._on_end()

    def _report(self, fraction: float) -> None:
        if fraction - self.fraction >= REPORTED_STEP or fraction >= 1.0:
            self.fraction = fraction
            self._on_progress()
