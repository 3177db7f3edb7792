"""Conversations and long prompts on disk, for when their place in the cache is another's or gone.

To read a file again takes a fraction of a second, to read a long prompt again a minute. A file is
written only where it is worth that, in the engine's thread, and found again by the tokens that
stand beside it; so a conversation outlives the server, too. The oldest go when all together grow
too large. Files have a prompt's words in them, as token ids, and are for their owner's eyes.

`state_key` says which engines can go on from each other's saved sequences.

A command that answers once forgets what it read. Where reading took long, `KeptPrompts` writes a
file when the session closes, so that the next question on the same text reads the question alone.
A memory with windows or a state can be continued at few places only. Its file ends where the
question seems to begin, with a checkpoint of an earlier place; a prompt that parts from the file
elsewhere is read anew, and leaves a file that ends there.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

from localspec import paths
from localspec.decode.step import Step
from localspec.dialogue.tail import question_places
from localspec.engine.base import Context, EngineConfig, shared_prefix
from localspec.engine.graphics import graphics
from localspec.engine.health import devices_text, engine_fingerprint
from localspec.engine.timing import TimedContext
from localspec.errors import EngineError
from localspec.gguf.reader import fingerprint
from localspec.session.session_config import SessionConfig
from localspec.settings import ROWS
from localspec.store import write_text


def state_key(config: EngineConfig) -> str:
    """Equal for engines that can go on from each other's saved sequences. OSError without files.

    Weights, cache types, the kernels' layout, the devices and the engine build count; the size of
    the context and the number of threads do not. LLAMA_ATTN_ROT_DISABLE decides whether a quantized
    cache is rotated, which no state file records (llama.cpp PR 21038).
    """
    settings = config.settings
    parts = (
        fingerprint(config.model),
        *(getattr(settings, name) for name, row in ROWS.items() if not row.is_exact),
        engine_fingerprint(),
        devices_text(graphics(settings.device, settings.workers) if settings.gpu_layers else []),
        os.environ.get("LLAMA_ATTN_ROT_DISABLE", ""),
    )
    return sha256(repr(parts).encode()).hexdigest()[:16]


LEAST_TOKENS = 256
"""Of a conversation that is worth a file, and that a file must spare a prompt."""
MOST_STATE_BYTES = 1_000_000_000
"""Half a second of a fast disk, in which everybody waits."""
STATE, TOKENS = ".state", ".tokens"


@dataclass(frozen=True, slots=True)
class KeptSequence:
    """A file, and what it holds. `places`: where it can be continued, None: anywhere."""

    path: Path
    tokens: list[int]
    n_bytes: int
    places: list[int] | None = None

    def spares(self, prompt: Sequence[int]) -> int:
        """How many of a prompt's first tokens need not be read."""
        n = shared_prefix(self.tokens, prompt)
        if self.places is None or n == len(self.tokens):
            return n
        return max((place for place in self.places if place <= n), default=0)


class DiskCache:
    """Files of engines that can read each other's; `most_bytes` for all of them together."""

    def __init__(self, folder: Path, most_bytes: float) -> None:
        self._folder, self._most_bytes = folder, most_bytes
        folder.mkdir(parents=True, exist_ok=True)
        by_age = sorted(folder.glob(f"*{STATE}"), key=lambda path: path.stat().st_mtime_ns)
        self.entries = [each for path in by_age if (each := _usable(path))]
        """The one that was not used for longest first."""

    def put(self, context: Context, places: list[int] | None = None) -> None:
        """Keep what a sequence holds, if that is worth it; it is about to be forgotten. `places`:
        where it can be continued before its end, None: anywhere."""
        tokens = list(context.tokens)
        if len(tokens) < LEAST_TOKENS or context.state_bytes > MOST_STATE_BYTES:
            return
        if self.longest(tokens)[1] > len(tokens) - LEAST_TOKENS:
            return  # most of it is here already
        name = sha256(json.dumps(tokens).encode()).hexdigest()[:24]
        path = self._folder / f"{name}{STATE}"
        try:
            context.save(path)
            write_text(path.with_suffix(TOKENS), json.dumps({"tokens": tokens, "places": places}))
        except (EngineError, OSError):
            _unlink(path)  # a cache can be made again
            return
        self.entries.append(KeptSequence(path, tokens, path.stat().st_size, places))
        while sum(entry.n_bytes for entry in self.entries) > self._most_bytes:
            _unlink(self.entries.pop(0).path)

    def longest(self, prompt: Sequence[int]) -> tuple[KeptSequence | None, int]:
        """Which file spares most of a prompt, and how many tokens."""
        best, n_best = None, 0
        for entry in self.entries:
            n = entry.spares(prompt)
            if n > n_best:
                best, n_best = entry, n
        return best, n_best

    def restore(self, entry: KeptSequence, context: Context) -> bool:
        """Hold what a file has. One that cannot be read is dropped."""
        is_good = entry.path.is_file() and context.restore(entry.path)
        is_good = is_good and list(context.tokens) == entry.tokens
        self.entries.remove(entry)
        if not is_good:
            context.go_back(0)
            _unlink(entry.path)
            return False
        self.entries.append(entry)
        with suppress(OSError):
            entry.path.touch()
        return True


def _usable(path: Path) -> KeptSequence | None:
    found = _read(path)
    if found is None:
        _unlink(path)
    return found


def _read(path: Path) -> KeptSequence | None:
    try:
        document = json.loads(path.with_suffix(TOKENS).read_text(encoding="utf-8"))
        tokens, places = document["tokens"], document["places"]
        size = path.stat().st_size
    except (OSError, ValueError, TypeError, KeyError):
        return None
    is_good = _is_numbers(tokens) and (places is None or _is_numbers(places))
    return KeptSequence(path, tokens, size, places) if is_good else None


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, int) for each in value)


def _unlink(path: Path) -> None:
    for each in (path, path.with_suffix(TOKENS)):
        each.unlink(missing_ok=True)


WORTH_S = 1.0
"""Seconds of reading that are worth a file."""
MOST_BYTES = 2_000_000_000
"""Of all files of one model with one set of settings."""


class KeptPrompts:
    """What a session's one context read, before and after this process."""

    def __init__(self, config: EngineConfig, context: TimedContext) -> None:
        folder = paths.cache_dir() / "prompts" / state_key(config)
        folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        self._disk = DiskCache(folder, MOST_BYTES)
        self._context = context
        self._is_free = context.engine.rollback_limit is None
        self._places: tuple[int, ...] = ()
        self._read_s = 0.0

    @classmethod
    def of(cls, asked: SessionConfig, config: EngineConfig, context: TimedContext) -> Self | None:
        """None where nothing is to be kept, or the disk keeps nothing."""
        with suppress(OSError):
            return cls(config, context) if asked.keeps_prompts else None
        return None

    def followed(
        self, prompt: Sequence[int], n_end: int, steps: Callable[[Sequence[int]], Iterator[Step]]
    ) -> Iterator[Step]:
        """The steps of a reply, which begins with what was kept of its prompt, a question of which
        ends with token `n_end`. `steps` is asked with the places to remember."""
        entry, n = self._disk.longest(prompt[:-1])
        if entry and n >= shared_prefix(self._context.tokens, prompt) + LEAST_TOKENS:
            self._context.go_back(0)
            self._disk.restore(entry, self._context)
        self._places = () if self._is_free else self._ends(prompt, n_end)
        n_here = shared_prefix(self._context.tokens, prompt)
        following = steps([n for n in self._places if n > n_here])
        for step in following:
            self._read_s = step.eval_s
            yield step
            break
        yield from following

    def keep(self) -> None:
        """Before the context is freed."""
        if self._read_s < WORTH_S:
            return
        if self._is_free:
            self._disk.put(self._context)
        elif self._places:
            self._context.go_back(self._places[-1])
            n = len(self._context.tokens)
            self._disk.put(self._context, [place for place in self._places if place < n])

    def _ends(self, prompt: Sequence[int], n_end: int) -> tuple[int, ...]:
        """Where its text ends: where the prompt parts from a file, else as it seems."""
        seem = question_places(prompt, n_end, self._context.engine.vocabulary.piece)
        parted = max((shared_prefix(each.tokens, prompt) for each in self._disk.entries), default=0)
        if parted < LEAST_TOKENS or self._disk.longest(prompt)[1] == parted:
            return seem
        return (*[n for n in seem if n < parted][:1], parted)
