"""Long prompts on disk, so that the next question on the same text reads the question alone.

A command that answers once forgets what it read. Where reading took long, what the cache holds goes
into a file when the session closes, and another process finds it by the tokens that a prompt shares
with it. Files are for their owner's eyes, the oldest go, and nothing is kept of what was read fast.
"""

from collections.abc import Iterator, Sequence
from typing import Self

from localspec import paths
from localspec.decode.step import Step
from localspec.engine.base import Context, EngineConfig, shared_prefix
from localspec.session.asking import SessionConfig
from localspec.session.disk_cache import LEAST_TOKENS, DiskCache
from localspec.session.state_key import state_key

WORTH_S = 1.0
"""Seconds of reading that are worth a file."""
MOST_BYTES = 2_000_000_000
"""Of all files of one model with one set of settings."""


class KeptPrompts:
    """What a session's one context read, before and after this process."""

    def __init__(self, config: EngineConfig, context: Context) -> None:
        folder = paths.cache_dir() / "prompts" / state_key(config)
        folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        self._disk = DiskCache(folder, MOST_BYTES)
        self._context = context
        self._read_s = 0.0

    @classmethod
    def of(cls, asked: SessionConfig, config: EngineConfig, context: Context) -> Self | None:
        """None where nothing is to be kept."""
        return cls(config, context) if asked.keeps_prompts else None

    def followed(self, prompt: Sequence[int], steps: Iterator[Step]) -> Iterator[Step]:
        """The steps of a reply, which begins with what was kept of its prompt."""
        self._recall(prompt)
        for step in steps:
            self._read_s = step.eval_s
            yield step
            break
        yield from steps

    def keep(self) -> None:
        """Before the context is freed."""
        if self._read_s >= WORTH_S:
            self._disk.put(self._context)

    def _recall(self, prompt: Sequence[int]) -> None:
        entry, n = self._disk.longest(prompt[:-1])
        n_here = shared_prefix(self._context.tokens, prompt)
        if entry and n >= n_here + LEAST_TOKENS:
            self._context.go_back(0)
            self._disk.restore(entry, self._context)
