"""The weights and layers of a model from its published configuration, by family.

Which matrices a family has, and of what size, is in src/models/*.cpp of llama.cpp. A tensor is a
role, a type of ggml, its elements, and whether it is an expert's and is streamed; norms, biases
and the like are F32 and one sum. Numbers of a configuration keep short names: `embd`, `ff`,
`heads`, `kv_heads`, `head` (numbers of one), `vocab`, `layers`, `experts`, `used`, `expert_ff`,
`shared_ff`, `dense_layers`, `dense_ff`, `window`, `full_every`.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

Key = tuple[str, str, bool, bool]
"""Role, type, whether an expert's, whether streamed."""


class Weights(Counter[Key]):
    """Elements by kind of tensor."""

    def put(self, role: str, n: int, kind: str = "F16", *, expert: bool = False) -> None:
        self[role, kind, expert, True] += n

    def keep(self, role: str, n: int, kind: str = "F16") -> None:
        """In the file, and not read for every token."""
        self[role, kind, False, False] += n


Layer = tuple[int, int, int, int, int | None, bool, bool]
"""Heads, heads of the cache, numbers of a key and of a value, window, has a cache, recurrent."""
Made = tuple[Weights, list[Layer], int]
"""The last is the state of all recurrent layers, in numbers of four bytes."""


def plain(c: Mapping[str, Any]) -> Made:
    """Transformers whose layers are alike but for windows and a mixture: Llama, Qwen, Gemma 3..."""
    weights, layers = _tables(c), list[Layer]()
    for i in range(c["layers"]):
        _attend(weights, c, c["heads"], c["kv_heads"], c["head"])
        _feed_forward(weights, c, i)
        layers.append((c["heads"], c["kv_heads"], c["head"], c["head"], _window(c, i), True, False))
    return weights, layers, 0


def delta(c: Mapping[str, Any]) -> Made:
    """Gated DeltaNet in three of four layers: Qwen3-Next and Qwen3.5 to 3.8.

    `key_heads`, `value_heads` of `state` numbers each; attention has a gate as large as queries.
    """
    weights, layers = _tables(c), list[Layer]()
    keys, values = c["key_heads"] * c["state"], c["value_heads"] * c["state"]
    n_recurrent = 0
    for i in range(c["layers"]):
        attends = (i + 1) % c["full_every"] == 0
        if attends:
            _attend(weights, c, c["heads"], c["kv_heads"], c["head"], gate=1)
        else:
            n_recurrent += 1
            weights.put("attention", c["embd"] * (2 * keys + 2 * values))
            weights.put("recurrent", 2 * c["embd"] * c["value_heads"] + values * c["embd"])
            weights.put("recurrent", c["conv"] * (2 * keys + values), "F32")
        _feed_forward(weights, c, i)
        cache = (c["heads"], c["kv_heads"], c["head"], c["head"], None)
        layers.append((*cache, attends, not attends))
    for i in range(c.get("head_layers", 0)):
        _head(weights, c, i)
    numbers = (c["conv"] - 1) * (2 * keys + values) + c["state"] * values
    return weights, layers, n_recurrent * numbers


def gemma4(c: Mapping[str, Any]) -> Made:
    """Windows with heads of their own; keys that are values; inputs by layer; a shared cache."""
    weights, layers = _tables(c), list[Layer]()
    n_own = c["layers"] - c.get("shared_layers", 0)
    for i in range(c["layers"]):
        window = _window(c, i)
        n_kv, head = (c["kv_heads"], c["head"]) if window else (c["full_kv_heads"], c["full_head"])
        n_copies = 2 if window or not c.get("keys_are_values") else 1
        weights.put("attention", 2 * c["embd"] * c["heads"] * head)
        weights.put("attention", n_copies * c["embd"] * n_kv * head * (i < n_own))
        wide = 2 if c.get("wide_shared") and i >= n_own else 1
        weights.put("feed_forward", 3 * c["embd"] * c["ff"] * wide)
        if c.get("experts"):
            weights.put("experts", 3 * c["embd"] * c["expert_ff"] * c["experts"], expert=True)
            weights.put("feed_forward", c["embd"] * c["experts"], "F32")
        weights.put("other", 2 * c["embd"] * c.get("layer_embd", 0))
        weights.put("norm", 6 * c["embd"], "F32")
        layers.append((c["heads"], n_kv, head, head, window, i < n_own, False))
    if c.get("layer_embd"):
        weights.put("other", c["embd"] * c["layer_embd"] * c["layers"])
        weights.keep("embedding", c["layer_embd"] * c["layers"] * c["vocab"])
    return weights, layers, 0


def latent(c: Mapping[str, Any]) -> Made:
    """Multi-head latent attention: one compressed key a token, and no value (DeepSeek, GLM)."""
    weights, layers = _tables(c), list[Layer]()
    key, query = c["kv_rank"], c["nope"] + c["rope"]
    for i in range(c["layers"]):
        weights.put("attention", c["embd"] * c["q_rank"] + c["q_rank"] * c["heads"] * query)
        weights.put("attention", c["embd"] * (key + c["rope"]))
        weights.put("attention", key * c["heads"] * (c["nope"] + c["value"]))
        weights.put("attention", c["heads"] * c["value"] * c["embd"])
        _feed_forward(weights, c, i)
        layers.append((c["heads"], 1, key + c["rope"], 0, None, True, False))
    return weights, layers, 0


def lfm2(c: Mapping[str, Any]) -> Made:
    """Short convolutions, and attention in `attending` of the layers."""
    weights, layers = _tables(c), list[Layer]()
    n_conv = c["layers"] - c["attending"]
    for i in range(c["layers"]):
        attends = i >= n_conv
        if attends:
            _attend(weights, c, c["heads"], c["kv_heads"], c["head"])
        else:
            weights.put("recurrent", 4 * c["embd"] ** 2)
            weights.put("recurrent", c["conv"] * c["embd"], "F32")
        _feed_forward(weights, c, i)
        layers.append((c["heads"], c["kv_heads"] * attends, c["head"], c["head"], None, attends,
                       not attends))  # fmt: skip
    return weights, layers, n_conv * c["embd"] * (c["conv"] - 1)


def nemotron(c: Mapping[str, Any]) -> Made:
    """A layer either remembers (M), attends (*) or is a mixture (E), by `pattern`."""
    weights, layers = _tables(c), list[Layer]()
    inner, groups = c["ssm_heads"] * c["ssm_head"], 2 * c["groups"] * c["state"]
    for kind in c["pattern"]:
        weights.put("norm", c["embd"], "F32")
        if kind == "M":
            width = 2 * inner + groups + c["ssm_heads"]
            weights.put("recurrent", c["embd"] * (width + inner))
            weights.put("recurrent", (c["conv"] + 1) * (inner + groups) + inner, "F32")
        elif kind == "*":
            _project(weights, c, c["heads"], c["kv_heads"], c["head"])
        else:
            weights.put("experts", 2 * c["embd"] * c["expert_ff"] * c["experts"], expert=True)
            weights.put("feed_forward", 2 * c["embd"] * c["shared_ff"])
            weights.put("feed_forward", c["embd"] * c["experts"], "F32")
        attends = kind == "*"
        layers.append((c["heads"] * attends, c["kv_heads"] * attends, c["head"], c["head"], None,
                       attends, kind == "M"))  # fmt: skip
    numbers = (c["conv"] - 1) * (inner + groups) + c["state"] * inner
    return weights, layers, c["pattern"].count("M") * numbers


FAMILIES: dict[str, Callable[[Mapping[str, Any]], Made]] = {
    "plain": plain,
    "delta": delta,
    "gemma4": gemma4,
    "latent": latent,
    "lfm2": lfm2,
    "nemotron": nemotron,
}


def _tables(c: Mapping[str, Any]) -> Weights:
    """Embeddings, which are the output matrix as well where they are tied."""
    weights, n = Weights(), c["vocab"] * c["embd"]
    kind = c.get("other_type", "F16")
    if c["tied"]:
        weights.put("embedding", n, kind)
    else:
        weights.keep("embedding", n, kind)
        weights.put("output", n, kind)
    weights.put("norm", c["embd"], "F32")
    return weights


def _attend(
    weights: Weights, c: Mapping[str, Any], heads: int, kv_heads: int, head: int, gate: int = 0
) -> None:
    _project(weights, c, heads, kv_heads, head, gate)
    weights.put("norm", c.get("norms", 2) * c["embd"] + 2 * head * c.get("head_norms", 0), "F32")


def _project(
    weights: Weights, c: Mapping[str, Any], heads: int, kv_heads: int, head: int, gate: int = 0
) -> None:
    kind, numbers = c.get("other_type", "F16"), heads + kv_heads
    weights.put("attention", (2 * numbers + gate * heads) * head * c["embd"], kind)
    weights.put("attention", c.get("biases", 0) * (heads + 2 * kv_heads) * head, "F32")


def _feed_forward(weights: Weights, c: Mapping[str, Any], layer: int) -> None:
    embd, n_experts = c["embd"], c.get("experts", 0)
    if layer < c.get("dense_layers", 0):
        weights.put("feed_forward", 3 * embd * c["dense_ff"])
    elif n_experts:
        kind = c.get("expert_type", "F16")
        weights.put("experts", 3 * embd * c["expert_ff"] * n_experts, kind, expert=True)
        weights.put("feed_forward", embd * n_experts, "F32")
        weights.put("feed_forward", 3 * embd * c.get("shared_ff", 0))
    else:
        weights.put("feed_forward", 3 * embd * c["ff"])


def _head(weights: Weights, c: Mapping[str, Any], layer: int) -> None:
    """A block that predicts a further token: in the file, and asked for by drafting alone."""
    whole = Weights()
    _attend(whole, c, c["heads"], c["kv_heads"], c["head"], gate=1)
    _feed_forward(whole, c, c["layers"] + layer)
    for (role, *_), n in whole.items():
        weights.keep(role, n)
    weights.keep("other", 2 * c["embd"] ** 2)


def _window(c: Mapping[str, Any], layer: int) -> int | None:
    """Every `full_every`-th layer sees everything, the others `window` tokens."""
    if not c.get("window"):
        return None
    return None if (layer + 1) % c["full_every"] == 0 else c["window"]
