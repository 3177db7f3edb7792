"""An engine's predictions on the windows of a text, as a reference or compared with one.

Reading the whole text takes half a minute to minutes, so references are stored on disk.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from localspec import paths
from localspec.engine.base import Context, Engine, require_number
from localspec.engine.health import engine_fingerprint
from localspec.model.identity import fingerprint
from localspec.notify import Progress
from localspec.quality.divergence import Divergence, Scores, Windows, log_softmax, scores
from localspec.quality.reference import Floats, Reference, Rows
from localspec.store import hashed

MAX_OUTPUTS = 256
"""Rows of one decode: all must come from one micro-batch, which has 512 tokens or more."""
_OUTPUT_BYTES = 128_000_000
_BLOCK_BYTES = 16_000_000


def n_outputs_for(windows: Windows, n_vocab: int) -> int:
    """Rows of logits that an engine should return at once: a window's, if memory allows."""
    return max(1, min(windows.n_scored_each, MAX_OUTPUTS, _OUTPUT_BYTES // (4 * n_vocab)))


def reference_of(
    engine: Engine, context: Context, windows: Windows, on_progress: Progress = lambda done: None
) -> Reference:
    """Read every window and keep the predictions. Raises Interrupted, EngineError, ModelError."""
    reference = Reference()
    for window in range(windows.n_windows):
        parts = [
            Rows.of(log_softmax(rows), windows.targets(window)[start : start + len(rows)], start)
            for start, rows in _blocks(engine, context, windows, window)
        ]
        reference.windows.append(Rows.joined(parts))
        on_progress((window + 1) / windows.n_windows)
    return reference


def divergence_of(
    engine: Engine,
    context: Context,
    windows: Windows,
    reference: Reference,
    on_progress: Progress = lambda done: None,
    is_enough: Callable[[Divergence], bool] | None = None,
) -> Divergence:
    """Compare the same windows with a reference, or the first ones until `is_enough`.

    Raises as `reference_of`.
    """
    found: list[Scores] = []
    for window in range(windows.n_windows):
        known, targets = reference.windows[window], windows.targets(window)
        found += [
            scores(known.block(start, start + len(rows)), rows, targets[start : start + len(rows)])
            for start, rows in _blocks(engine, context, windows, window)
        ]
        on_progress((window + 1) / windows.n_windows)
        if is_enough and is_enough(Divergence.of(found, reference.nll)):
            break
    return Divergence.of(found, reference.nll)


def _blocks(
    engine: Engine, context: Context, windows: Windows, window: int
) -> Iterator[tuple[int, Floats]]:
    """Logits of a window's scored positions with their place, in blocks that fit a CPU cache."""
    context.truncate(0)
    tokens = windows.tokens[window].tolist()
    n_vocab = engine.vocabulary.n_tokens
    n_block = max(1, _BLOCK_BYTES // (4 * n_vocab))
    done, end = 0, windows.n_unscored
    while done < windows.n_scored_each:
        n = min(engine.config.n_outputs, windows.n_scored_each - done)
        begin, end = (0 if done == 0 else end), windows.n_unscored + done + n
        logits = context.eval(tokens[begin:end], n)
        for start in range(0, n, n_block):
            rows = np.stack([logits.row(i) for i in range(start, min(n, start + n_block))])
            require_number(rows.max())
            yield done + start, rows
        done += n


MOST_KEPT = 4
"""Files to keep; one of the whole shipped text has 60 MB."""


def kept_reference(model: Path, windows: Windows) -> Reference | None:
    """A model's stored predictions on these windows by this engine build; None without any."""
    return Reference.load(_path(model, windows), windows.n_windows)


def keep_reference(reference: Reference, model: Path, windows: Windows) -> None:
    """Store a reference, and delete all but the newest few others."""
    path = _path(model, windows)
    reference.save(path)
    by_age = sorted(path.parent.glob("*.npz"), key=lambda file: file.stat().st_mtime)
    for old in by_age[:-MOST_KEPT]:
        old.unlink(missing_ok=True)


def _path(model: Path, windows: Windows) -> Path:
    tokens = hashlib.sha256(windows.tokens.tobytes()).hexdigest()
    key = f"{fingerprint(model)} {tokens} {windows.tokens.shape} {engine_fingerprint()}"
    return hashed(paths.cache_dir() / "quality", key, 20).with_suffix(".npz")
