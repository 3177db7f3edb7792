"""Targets, dense or hybrid, whose next token depends on the last one alone, and heads beside them
that know.

Tokens follow each other as in `heads.ORDER`. Attention and feed-forward layers add nothing, so the
scores are those of the embedding.

EAGLE-3: the head's one layer reads (embedding e, state g) and gives g + e' - g', where ' is a norm:
e' itself, for g is the e' of the step before, or zero. Its attention looks at its own place only:
all queries and keys are one large vector, which a rotation turns away from itself.

DFlash and DSpark: mask tokens are the token before the end, so they all guess the end of the text.
"""

from pathlib import Path

import numpy as np
from babbling import byte_vocabulary
from beside import SMALL, given, write_dflash, write_eagle3
from heads import EOS, ORDER, write_agreeing

from localspec.gguf.types import BY_NAME
from localspec.gguf.writer import TensorPlan, write_gguf
from localspec.model.synthetic import RandomTensors, Shape, llama_metadata, llama_tensors

N, N_VOCAB = SMALL.n_embd, SMALL.n_vocab
BEFORE_END = ORDER[ORDER.index(EOS) - 1]
SHARPNESS = 9.0
"""Of attention: a place weighs e^20 times as much as the next."""
HEAD = Shape(n_layers=1, n_embd=N, n_heads=4, n_kv_heads=4, n_ff=256, n_vocab=N_VOCAB)


def noisy(n_rows: int, n_columns: int, noise: float) -> np.ndarray:
    """A matrix that passes on what stands first."""
    random = np.random.default_rng(5).standard_normal((n_rows, n_columns))
    return np.eye(n_rows, n_columns) + noise * random


def _embeddings() -> np.ndarray:
    """Of one length, with a last number that all share."""
    rows = np.random.default_rng(7).standard_normal((N_VOCAB, N))
    rows[:, -1] = 0
    rows *= np.sqrt((N - 1) / (rows**2).sum(1, keepdims=True))
    rows[:, -1] = 1
    return rows


def write_target(path: Path, *, is_hybrid: bool = False, is_stuck: bool = False) -> Path:
    """A llama model, or a hybrid. `is_stuck`: the token before the end follows itself."""
    embeddings = _embeddings()
    scores = np.zeros_like(embeddings)
    for token, following in zip(ORDER, [*ORDER[1:], ORDER[0]], strict=True):
        scores[BEFORE_END if is_stuck and following == EOS else following] = embeddings[token]
    rows = {"token_embd.weight": embeddings, "output.weight": scores}
    ends = {name: given(name, each) for name, each in rows.items()}
    if is_hybrid:
        return write_agreeing(path, kind="hybrid", part="target", ends=ends)
    plans = llama_tensors(SMALL, RandomTensors(BY_NAME["F16"], 0))
    tensors = [_silent(plan) for plan in plans if plan.name not in ends]
    write_gguf(path, llama_metadata(SMALL) | byte_vocabulary(N_VOCAB), [*tensors, *ends.values()])
    return path


def _silent(plan: TensorPlan) -> TensorPlan:
    if not any(name in plan.name for name in ("attn_output", "ffn_down")):
        return plan
    return given(plan.name, np.zeros(plan.shape[::-1]))


def write_agreeing_eagle3(path: Path, noise: float = 0.0) -> Path:
    """A head of EAGLE-3 that guesses right, the worse with more `noise`."""
    one_place = np.zeros((N, 2 * N))
    one_place[:, N - 1] = SHARPNESS
    block = "blk.0"
    weights = {
        "fc.weight": np.zeros((N, 3 * N)),
        f"{block}.attn_q.weight": one_place,
        f"{block}.attn_k.weight": one_place,
        f"{block}.attn_v.weight": np.concatenate([np.eye(N), -np.eye(N)], axis=1),
        f"{block}.attn_output.weight": noisy(N, N, noise),
        f"{block}.ffn_down.weight": np.zeros((N, HEAD.n_ff)),
    }
    return write_eagle3(path, HEAD, weights=weights)


def write_ending_block(path: Path, *, is_dspark: bool) -> Path:
    """A head of DFlash or DSpark that guesses what follows the token before the end, always: the
    end, or that token where the target is stuck. DSpark's first guess is right: it is made of the
    pending token."""
    return write_dflash(path, is_dspark=is_dspark, mask=BEFORE_END, is_silent=True)
