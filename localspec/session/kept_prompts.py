"""Long prompts on disk, so that the next question on the same text reads the question alone.

A command that answers once forgets what it read. Where reading took long, what the cache holds goes
into a file when the session closes, and another process finds it by the tokens that a prompt shares
with it. Files are for their owner's eyes, the oldest go, and nothing is kept of what was read fast.

A memory with windows or a state can be continued at few places only. Its file ends where the
question seems to begin, with a checkpoint of an earlier place; a prompt that parts from the file
elsewhere is read anew, and leaves a file that ends there.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Self

from localspec import paths
from localspec.decode.step import Step
from localspec.dialogue.tail import question_places
from localspec.engine.base import EngineConfig, shared_prefix
from localspec.engine.timing import TimedContext
from localspec.session.asking import SessionConfig
from localspec.session.disk_cache import LEAST_TOKENS, DiskCache, state_key

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
        """None where nothing is to be kept."""
        return cls(config, context) if asked.keeps_prompts else None

    def followed(
        self, prompt: Sequence[int], n_end: int, steps: Callable[[Sequence[int]], Iterator[Step]]
    ) -> Iterator[Step]:
        """The steps of a reply, which begins with what was kept of its prompt, a question of which
        ends with token `n_end`. `steps` is asked with the places to remember."""
        self._recall(prompt)
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

    def _recall(self, prompt: Sequence[int]) -> None:
        entry, n = self._disk.longest(prompt[:-1])
        n_here = shared_prefix(self._context.tokens, prompt)
        if entry and n >= n_here + LEAST_TOKENS:
            self._context.go_back(0)
            self._disk.restore(entry, self._context)

    def _ends(self, prompt: Sequence[int], n_end: int) -> tuple[int, ...]:
        """Where its text ends: where the prompt parts from a file, else as it seems."""
        seem = question_places(prompt, n_end, self._context.engine.vocabulary.piece)
        parted = max((shared_prefix(each.tokens, prompt) for each in self._disk.entries), default=0)
        if parted < LEAST_TOKENS or self._disk.longest(prompt)[1] == parted:
            return seem
        return (*[n for n in seem if n < parted][:1], parted)
