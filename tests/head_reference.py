"""EAGLE-3, DFlash and DSpark heads in NumPy, after src/models/eagle3.cpp and dflash.cpp of
llama.cpp. Weights come from the head's file, what it shares from the target's."""

from pathlib import Path

import numpy as np

from localspec.gguf.reader import read_header
from localspec.model.synthetic import NORM_EPSILON

Arrays = dict[str, np.ndarray]
KINDS = {"F16": np.float16, "F32": np.float32, "I64": np.int64}


def arrays(path: Path) -> Arrays:
    """All tensors of a file, shape (rows, length of a row)."""
    found: Arrays = {}
    for tensor in read_header(path).tensors:
        kind = KINDS[tensor.type.name]
        flat = np.fromfile(path, kind, tensor.n_elements, offset=tensor.offset_bytes)
        shaped = flat.reshape(tensor.shape[::-1])
        found[tensor.name] = shaped if kind is np.int64 else shaped.astype(np.float64)
    return found


def norm(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + NORM_EPSILON) * weights


def rotated(x: np.ndarray, positions: np.ndarray, *, are_neighbours: bool) -> np.ndarray:
    """Rotary embedding of shape (n, heads, size): pairs are neighbours, or half a head apart."""
    size = x.shape[-1]
    angles = positions[:, None, None] * 10_000.0 ** (-np.arange(0, size, 2) / size)
    halves = slice(0, size // 2), slice(size // 2, size)
    first, second = (slice(0, None, 2), slice(1, None, 2)) if are_neighbours else halves
    a, b, y = x[..., first], x[..., second], np.empty_like(x)
    y[..., first] = a * np.cos(angles) - b * np.sin(angles)
    y[..., second] = a * np.sin(angles) + b * np.cos(angles)
    return y


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, sees: np.ndarray) -> np.ndarray:
    """Shapes (n, heads, size), twice (m, heads of keys, size), (n, m); gives (n, heads x size)."""
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat(group, 1), v.repeat(group, 1)
    scores = np.einsum("nhd,mhd->hnm", q, k) / np.sqrt(q.shape[-1])
    scores = np.where(sees, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("hnm,mhd->nhd", weights, v).reshape(len(q), -1)


def feed_forward(w: Arrays, block: str, x: np.ndarray) -> np.ndarray:
    gate, up = (x @ w[f"{block}.ffn_{name}.weight"].T for name in ("gate", "up"))
    return (gate / (1 + np.exp(-gate)) * up) @ w[f"{block}.ffn_down.weight"].T


class Reference:
    """A head's file beside its target's."""

    def __init__(self, head: Path, target: Path, size: int) -> None:
        self.w, of_target, self.size = arrays(head), arrays(target), size
        self.flags = read_header(head)
        self.embeddings = of_target["token_embd.weight"]
        shared = of_target.get("output.weight", self.embeddings)
        self.output = self.w.get("output.weight", shared)

    def _heads(self, x: np.ndarray, name: str) -> np.ndarray:
        return (x @ self.w[name].T).reshape(len(x), -1, self.size)

    def scores(self, state: np.ndarray) -> np.ndarray:
        """By the target's tokens; those that the head lacks have -inf."""
        own = norm(state, self.w["output_norm.weight"]) @ self.output.T
        if "d2t" not in self.w:
            return own
        every = np.full((len(state), len(self.embeddings)), -np.inf)
        every[:, self.w["d2t"]] = own
        return every


class Eagle3(Reference):
    """One layer over pairs of a token and the state before it."""

    def encoded(self, taps: np.ndarray) -> np.ndarray:
        if self.flags.flag("eagle3.norm_before_fc"):
            taps = norm(taps, self.w["enc.output_norm.weight"])
        return taps @ self.w["fc.weight"].T

    def states(self, tokens: list[int], states: np.ndarray) -> np.ndarray:
        """The head's own state behind each pair; the i-th stands at position i."""
        block, places = "blk.0", np.arange(len(tokens))
        before = norm(states, self.w[f"{block}.attn_norm_2.weight"])
        words = norm(self.embeddings[tokens], self.w[f"{block}.attn_norm.weight"])
        x = np.concatenate([words, before], axis=1)
        q, k, v = (self._heads(x, f"{block}.attn_{name}.weight") for name in "qkv")
        q, k = (rotated(each, places, are_neighbours=True) for each in (q, k))
        y = attention(q, k, v, np.tri(len(tokens), dtype=bool))
        y = y @ self.w[f"{block}.attn_output.weight"].T
        y += before if self.flags.flag("eagle3.norm_before_residual") else states
        return y + feed_forward(self.w, block, norm(y, self.w[f"{block}.ffn_norm.weight"]))


class Dflash(Reference):
    """Two layers over a block, which also read keys and values of the target's states."""

    def block(self, taps: np.ndarray, tokens: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Scores and last states of each row of a block behind `taps`."""
        g = norm(taps @ self.w["fc.weight"].T, self.w["enc.output_norm.weight"])
        n, x = len(g), self.embeddings[tokens]
        places = np.arange(n + len(tokens))
        for block in ("blk.0", "blk.1"):
            own = norm(x, self.w[f"{block}.attn_norm.weight"])
            every = np.concatenate([g, own])
            q = self._heads(own, f"{block}.attn_q.weight")
            k, v = (self._heads(every, f"{block}.attn_{name}.weight") for name in "kv")
            q = rotated(self._normed(q, block, "q"), places[n:], are_neighbours=False)
            k = rotated(self._normed(k, block, "k"), places, are_neighbours=False)
            y = attention(q, k, v, np.ones((len(tokens), len(places)), bool))
            y = y @ self.w[f"{block}.attn_output.weight"].T + x
            x = y + feed_forward(self.w, block, norm(y, self.w[f"{block}.ffn_norm.weight"]))
        return self.scores(x), norm(x, self.w["output_norm.weight"])

    def _normed(self, x: np.ndarray, block: str, name: str) -> np.ndarray:
        return norm(x, self.w[f"{block}.attn_{name}_norm.weight"])

    def chained(
        self, scores: np.ndarray, states: np.ndarray, token: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """DSpark: what the best token of the row before adds to each, and the rows' chances."""
        chances, scores = np.empty(len(scores)), scores.copy()
        for i, row in enumerate(scores):
            before = self.w["markov_w1.weight"][token]
            row += self.w["markov_w2.weight"] @ before
            read = np.concatenate([states[i], before])
            weight = float((self.w["conf_proj.weight"] @ read + self.w["conf_proj.bias"])[0])
            chances[i], token = 1 / (1 + np.exp(-weight)), int(row.argmax())
        return scores, chances


def mtp_guess(target: Arrays, head: Arrays, before: int, token: int) -> int:
    """What an agreeing MTP head, noise and all, says of the token behind a pending one and the one
    before it."""
    (name,) = (name for name in head if name.endswith("nextn.eh_proj.weight"))
    words = target["token_embd.weight"]
    read = np.concatenate([norm(words[token], 1), norm(norm(words[before], 1), 1)])
    return int((target["output.weight"] @ (head[name] @ read)).argmax())
