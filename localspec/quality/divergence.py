"""Perplexity, Kullback-Leibler divergence and agreement of predictions with a reference's.

    D(p || q) = sum over tokens of p log(p / q),  p the reference's distribution, q the other's

in nats a token, an unbiased estimate from the part of p that `reference` keeps. Reading the whole
text takes half a minute to minutes, so references are stored on disk.

llama-perplexity cuts a text into windows. The engine reads each window on its own, from an empty
cache, with BOS as its first token where the model wants one. Only the second half is scored, so
that every scored token has half a window before it.

`opticks.txt`: the Queries of Isaac Newton's Opticks, about 100 kB of old English prose. Fourth
edition, London 1730, Book Three: long in the public domain. The volunteers of pgdp.net transcribed
it (Suzanne Lybarger, Steve Harris, Josephine Paolucci and others). It comes from Go's test data
(`testdata/Isaac.Newton-Opticks.txt` in Debian's golang-1.19-src 1.19.8-2), with paragraphs on one
line each and without the marks of italics.

`published.csv`: figures that others published, each with its model and source, for orientation.
Another model loses other amounts, and so do builds before the rotation of quantized caches
(llama.cpp PR 21038).
"""

import csv
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt

from localspec import paths
from localspec.engine.base import Context, Engine, require_number
from localspec.engine.health import engine_fingerprint
from localspec.engine.vocabulary import Vocabulary
from localspec.errors import UserError
from localspec.gguf.reader import fingerprint
from localspec.notify import Progress
from localspec.quality.reference import Floats, Ids, Reference, Rows
from localspec.store import hashed


@dataclass(frozen=True, slots=True)
class Divergence:
    """Figures of a text's scored tokens. `kld_error`: one standard error of the mean."""

    n_tokens: int
    perplexity: float
    reference_perplexity: float
    kld: float
    kld_error: float
    kld_p99: float
    same_top: float

    @classmethod
    def of(cls, scores: "list[Scores]", reference_nll: Floats) -> "Divergence":
        """From the scores of all blocks, in order."""
        kld, nll, same = (
            np.concatenate([getattr(score, name) for score in scores]) for name in Scores.__slots__
        )
        n = len(kld)
        return cls(
            n_tokens=n,
            perplexity=float(np.exp(nll.mean(dtype=np.float64))),
            reference_perplexity=float(np.exp(reference_nll[:n].mean(dtype=np.float64))),
            kld=float(kld.mean()),
            kld_error=float(kld.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.0,
            kld_p99=float(np.quantile(kld, 0.99)),
            same_top=float(same.mean()),
        )


@dataclass(frozen=True, slots=True)
class Scores:
    """For each token of a block: divergence, negative log likelihood, and whether the most likely
    token is the reference's."""

    kld: npt.NDArray[np.float64]
    nll: Floats
    same: npt.NDArray[np.bool_]


def log_softmax(rows: Floats) -> Floats:
    """Log probabilities of rows of logits, shape (n, n_vocab)."""
    shifted = rows - rows.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def scores(reference: Rows, rows: Floats, targets: Ids) -> Scores:
    """Compare logits, shape (n, n_vocab), with the reference's distributions at n positions."""
    log_q = log_softmax(rows)
    log_p = reference.log_p.astype(np.float64)
    gap = log_p - np.take_along_axis(log_q, reference.ids, axis=1)
    n = reference.n_likeliest
    kld = (np.exp(log_p[:, :n]) * gap[:, :n]).sum(axis=1)
    if gap.shape[1] > n:
        kld += reference.rest * gap[:, n:].mean(axis=1)
    return Scores(
        kld=kld,
        nll=-log_q[np.arange(len(rows)), targets],
        same=rows.argmax(axis=1) == reference.top,
    )


DEFAULT_WINDOW = 512


@dataclass(frozen=True, slots=True)
class Windows:
    """Token ids, shape (windows, tokens of a window)."""

    tokens: npt.NDArray[np.int32]

    @property
    def n_ctx(self) -> int:
        return self.tokens.shape[1]

    @property
    def n_windows(self) -> int:
        return self.tokens.shape[0]

    @property
    def n_unscored(self) -> int:
        """Leading tokens of a window whose next token is not scored."""
        return self.n_ctx // 2

    @property
    def n_scored(self) -> int:
        """Scored tokens of all windows."""
        return self.n_windows * self.n_scored_each

    @property
    def n_scored_each(self) -> int:
        return self.n_ctx - 1 - self.n_unscored

    def targets(self, window: int) -> npt.NDArray[np.int32]:
        """The text's next token at each scored position."""
        return self.tokens[window, self.n_unscored + 1 :]

    def only(self, window: int) -> "Windows":
        """One window."""
        return Windows(self.tokens[window : window + 1])

    def first(self, n_windows: int) -> "Windows":
        """The first windows only."""
        return Windows(self.tokens[:n_windows])


def windows_of(
    vocabulary: Vocabulary, text: str, n_ctx: int = DEFAULT_WINDOW, n_windows: int | None = None
) -> Windows:
    """The windows of a text; `n_windows` None: all. UserError where it does not fill one."""
    tokens = vocabulary.tokenize(text, add_special=True)
    n_all = len(tokens) // n_ctx
    if n_all == 0:
        raise UserError(
            f"the text has {len(tokens):,} tokens and a window {n_ctx:,}: give a longer --text"
        )
    n = n_all if n_windows is None else min(n_windows, n_all)
    cut = np.array(tokens[: n * n_ctx], np.int32).reshape(n, n_ctx)
    if bos := vocabulary.tokenize("", add_special=True)[:1]:
        cut = np.hstack([np.full((n, 1), bos[0], np.int32), cut[:, 1:]])
    return Windows(cut)


@dataclass(frozen=True, slots=True)
class Published:
    """One figure: mean KL divergence in nats a token of a type in a model."""

    model: str
    kind: str
    kld: float
    source: str


def of_weights(kind: str) -> tuple[Published, ...]:
    """Figures of a weight type, such as Q4_K_M, made without an importance matrix."""
    return tuple(p for p in _figures("weights") if p.kind.lower() == kind.lower())


def of_cache(kv_k: str, kv_v: str) -> tuple[Published, ...]:
    """Figures of a pair of cache types with f16 weights, or with the source's own weights."""
    names = {f"f16/{kv_k}/{kv_v}"} | ({kv_k} if kv_k == kv_v else set())
    return tuple(p for p in _figures("kv") if p.kind in names)


@cache
def _figures(what: str) -> tuple[Published, ...]:
    text = (files("localspec.quality") / "published.csv").read_text(encoding="utf-8")
    return tuple(
        Published(row["model"], row["type"], float(row["kld"]), row["source"])
        for row in csv.DictReader(text.splitlines())
        if row["what"] == what and row["kld"]
    )


NAME = "Newton's Opticks (1730), the Queries"


@cache
def shipped_text() -> str:
    """The whole shipped text."""
    return (files("localspec.quality") / "opticks.txt").read_text(encoding="utf-8")


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
