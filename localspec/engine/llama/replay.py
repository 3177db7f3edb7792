"""Does this model's memory go back as `rollback.py` claims? Tried out when it is loaded.

Six passes over a few tokens compare logits: behind a checkpoint that was gone back to, and behind
tokens that were taken back, with those of a sequence that never held anything else. A list of
architectures would be wrong for the next one, and was: llama.cpp lists one that fails its own test
(issue 28019). Attention alone is asked only whether it forgets. A good verdict that took long is
kept for the same file, engine build and settings.

It tries a few places, not all of them, and none behind a full window.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Protocol

import numpy as np
import numpy.typing as npt

from localspec.engine.base import EngineConfig, Logits
from localspec.engine.health import LARGEST_ERROR, engine_fingerprint
from localspec.engine.llama.rollback import PARTIAL, WHOLE, LlamaMemory, SequenceMemory
from localspec.errors import EngineError
from localspec.gguf.reader import fingerprint
from localspec.settings import ROWS
from localspec.store import Kept

LONG_S = 0.3
"""A check that takes longer is not made again."""
START, NEXT, LATER, LAST = (0, 1, 2, 3), 4, 5, 6
"""Tokens of the texts that are compared; every vocabulary has them."""

Row = npt.NDArray[np.float32]


class ReplayScratch(Protocol):
    """A sequence that the check may use; left empty."""

    memory: SequenceMemory

    @property
    def tokens(self) -> Sequence[int]: ...
    def eval(self, tokens: Sequence[int], n_logits: int) -> Logits: ...
    def checkpoint(self) -> None: ...
    def go_back(self, n: int) -> None: ...
    def clear(self) -> None: ...


@dataclass(frozen=True, slots=True)
class ReplayVerdict:
    """Whether tokens can be taken back, and how checkpoints are copied; None: they are not."""

    rolls_back: bool
    flags: int | None


FORGETS = ReplayVerdict(rolls_back=True, flags=None)
"""Of attention alone, which needs no checkpoints."""


def rollback_limit(memory: LlamaMemory, scratch: ReplayScratch, config: EngineConfig) -> int | None:
    """How many new tokens can be taken back, 0: none, None: all; `memory` learns what was found.

    A file that was tried once evaluates nothing. Raises EngineError where the engine fails.
    """
    memory.keeps_state = memory.keeps_state or not _forgets(memory, scratch, config)
    if not memory.keeps_state:
        # A windowed cache keeps a micro-batch more than its window: shorter drafts are safe.
        return config.settings.ubatch - 1 if memory.n_window else None
    verdict = _verdict(memory, scratch, config)
    memory.flags = verdict.flags
    memory.n_snapshots = memory.n_snapshots if verdict.rolls_back else 0
    return memory.n_snapshots


def _forgets(memory: LlamaMemory, scratch: ReplayScratch, config: EngineConfig) -> bool:
    """Whether the memory takes a token back, as that of attention alone does."""
    kept = _kept(config)
    if kept.load() == FORGETS:
        return True
    scratch.eval((0, 0), 0)
    has_forgotten = memory.forget(scratch.memory.sequence, 1)
    scratch.clear()
    if has_forgotten:
        kept.save(FORGETS)
    return has_forgotten


def _verdict(memory: LlamaMemory, scratch: ReplayScratch, config: EngineConfig) -> ReplayVerdict:
    kept = _kept(config)
    if known := kept.load():
        return known
    started = perf_counter()
    copies = ((flags, partial(_resumes, memory, scratch, flags)) for flags in (PARTIAL, WHOLE))
    flags = next((flags for flags, claim in copies if _holds(claim, scratch)), None)
    has_snapshots, claim = memory.n_snapshots > 0, partial(_rolls_back, memory, scratch)
    verdict = ReplayVerdict(has_snapshots and _holds(claim, scratch), flags)
    if verdict == ReplayVerdict(has_snapshots, PARTIAL) and perf_counter() - started > LONG_S:
        kept.save(verdict)
    return verdict


def _holds(claim: Callable[[], bool], scratch: ReplayScratch) -> bool:
    """Whether a claim is true. The engine, which works, refuses what goes on from a wrong place."""
    try:
        return claim()
    except EngineError:
        return False
    finally:
        scratch.clear()


def _resumes(memory: LlamaMemory, scratch: ReplayScratch, flags: int) -> bool:
    """Whether what follows a checkpoint is the same before and after going back to it."""
    memory.flags = flags
    scratch.eval(START, 0)
    scratch.checkpoint()
    straight = _row(scratch, NEXT)
    scratch.go_back(len(START))
    return len(scratch.tokens) == len(START) and _agree(_row(scratch, NEXT), straight)


def _rolls_back(memory: LlamaMemory, scratch: ReplayScratch) -> bool:
    """Take back as many as may be of one pass, then one of the next."""
    n, taken = len(START), [LAST] * memory.n_snapshots
    straight = _row(scratch, *START, NEXT), _row(scratch, LATER, LAST)
    scratch.clear()
    scratch.eval((*START, *taken), 0)
    scratch.go_back(n)
    if len(scratch.tokens) != n or not _agree(_row(scratch, NEXT), straight[0]):
        return False
    scratch.eval((LATER, NEXT), 0)
    scratch.go_back(n + 2)
    return len(scratch.tokens) == n + 2 and _agree(_row(scratch, LAST), straight[1])


def _row(scratch: ReplayScratch, *tokens: int) -> Row:
    return scratch.eval(tokens, 1).row(0).copy()


def _agree(one: Row, other: Row) -> bool:
    """As far as kernels for different widths do; NaN agrees with nothing."""
    return bool(np.abs(one - other).max() <= LARGEST_ERROR * other.std())


def _kept(config: EngineConfig) -> Kept[ReplayVerdict]:
    numbers = [getattr(config.settings, name) for name, row in ROWS.items() if not row.is_exact]
    key = (fingerprint(config.model), engine_fingerprint(), config.settings.n_rs_seq, numbers)
    return Kept.of(ReplayVerdict, "replay", repr(key))
