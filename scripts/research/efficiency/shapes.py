"""Shapes of the models that published runs name: what a token streams, and what it multiplies.

A row of a CSV has a model's name, a rounded number of weights and perhaps the size of its file.
data/shapes.csv has the rest as the makers publish it, written down by hand and held against the
catalogue's configurations (tests/test_shapes.py) or public lists of them. Columns: a name's
pattern, 10^9 weights, layers, embedding length, bytes of F16 keys and values that a pass reads for
a cached token, rows of a table, tied tables, kind; of mixtures 10^9 weights in routed experts,
experts of a layer and those a token uses; 10^9 weights of which a token reads a row; a sliding
window and the share of the cache behind it; numbers of all query heads; 10^6 bytes of state; the
source, which is the catalogue's entry that a row is held against, or the public page that lists its
layers, width, heads, vocabulary and experts. Bytes of the cache follow from heads.
Other models get the shape usual at their size, mixtures what their names say ("30B-A3B").
"""

import csv
import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from localspec.forecast.known_models import USUAL_VOCABULARY, usual_shape

TABLE = Path(__file__).parent / "data" / "shapes.csv"
NEAR = 0.17
"""Sources round: 14 for 14.77, 7 for 7.62."""
SLACK = 0.5e9
"""By which small models may be rounded: 1 for 0.596."""
ATTENDING = {"dense": 1.0, "mla": 1.0, "hybrid": 0.25}
"""Share of the layers that attend over the whole context."""
MTP_SHARE = 0.04
"""By at most so much a file with a head for drafts has more weights than the model alone."""
EXPERTS_USED, EXPERT_SHARE = 0.65, 0.94
"""Of a mixture that is not in the table: of its active weights those in experts, of all weights."""
MIXTURE = re.compile(
    r"\d+b[- .]?a\d|\d+x\d+b|\bmoe\b|gpt.oss|mixtral|scout|maverick|\bglm 4\.[567](?! 9)"
    r"|dots\.llm|minimax|deepseek (v[234]|r1$|r1 0|coder v2)|hunyuan a|\bling\b|kimi|\ba\d+b\b"
    r"|trinity (mini|large)|laguna|olmoe|ernie 4\.5 21b|next 80b|coder next"
    r"|nemotron 3 (super|ultra)|\bglm 5|mistral small 4|step 3\.5|granite 4\.\d h (small|tiny)"
    r"|solar open|mimo v2|intellect 3|\bring (mini|flash)"
)
ACTIVE_B = (
    (r"\bglm 5", 40.0), (r"deepseek v4 flash", 13.0), (r"deepseek v4 pro", 49.0),
    (r"mistral small 4", 6.5), (r"step 3\.5", 11.0), (r"solar open 100b", 12.0),
    (r"mimo v2 flash", 15.0), (r"trinity large", 13.0), (r"intellect 3", 12.0),
    (r"nemotron 3 ultra", 50.0), (r"ling flash|ring flash", 6.1),
)  # fmt: skip
"""10^9 weights that a token uses, of mixtures whose names do not say it: their makers' cards,
recalled."""


@dataclass(frozen=True, slots=True)
class Shape:
    """`kv_bytes` of F16 keys and values that a cached token takes; `n_vocab` rows of a table.

    `expert_params` in all routed experts, `lookup_params` of which a token reads a row.
    """

    n_params: float
    n_layers: int
    n_embd: int
    kv_bytes: float
    n_vocab: int
    is_tied: bool = False
    kind: str = "dense"
    expert_params: float = 0.0
    n_experts: int = 0
    n_used: int = 0
    lookup_params: float = 0.0
    window_tokens: int | None = None
    windowed_share: float = 0.0
    attention_width: int = 0
    state_bytes: float = 0.0
    """Of recurrent layers, which a token reads and writes."""

    @property
    def is_mixture(self) -> bool:
        return self.n_experts > 0

    @property
    def table_params(self) -> float:
        return self.n_vocab * self.n_embd

    @property
    def unread_params(self) -> float:
        """Of tables that a pass does not stream."""
        return self.lookup_params + (0.0 if self.is_tied else self.table_params)

    @property
    def dense_params(self) -> float:
        """That every token streams."""
        return max(0.05 * self.n_params, self.n_params - self.expert_params - self.unread_params)

    @property
    def multiplied_params(self) -> float:
        """Of all tokens of a prompt, experts left out: without the tables of input and output."""
        return max(0.5 * self.dense_params, self.dense_params - self.table_params)

    @property
    def used_share(self) -> float:
        """Of the experts, by one token."""
        return self.n_used / self.n_experts if self.n_experts else 0.0

    def touched_share(self, n_tokens: float) -> float:
        """Of the experts, by a pass."""
        return 1 - (1 - self.used_share) ** n_tokens

    def cached_bytes(self, depth: float) -> float:
        """Of keys and values that a token at a depth reads."""
        seen = min(depth, self.window_tokens or depth)
        return self.kv_bytes * (self.windowed_share * seen + (1 - self.windowed_share) * depth)

    @property
    def query_width(self) -> int:
        """Numbers of all query heads."""
        return self.attention_width or self.n_embd

    @property
    def group(self) -> float:
        """Query heads that share one of keys and values."""
        full = 4 * self.query_width * self.n_layers * ATTENDING[self.kind]
        return max(1.0, full / self.kv_bytes)

    @property
    def attending_layers(self) -> float:
        return self.n_layers * ATTENDING[self.kind] * (1 - self.windowed_share)


def shape_of(model: str, n_params: float | None, *, is_mixture: bool = False) -> Shape | None:
    """By a model's name and the number of weights that its source gives, if it does.

    None where neither says how many weights there are.
    """
    name = re.sub(r"[^a-z0-9.]+", " ", model.lower())
    said = _said_params(name)
    mixture = is_mixture or bool(MIXTURE.search(name))
    near = _nearest(name, n_params or said, is_mixture=mixture)
    if near is None and said and n_params:
        near = _nearest(name, said, is_mixture=mixture)
    if near is not None:
        return near
    weights = n_params or said
    if not weights:
        return None
    usual = _usual(name, weights)
    return _as_mixture(usual, name) if mixture else usual


def is_exact(n_params: float) -> bool:
    """Whether a source counted: 27.32 and not 27."""
    return abs(n_params / 1e9 - round(n_params / 1e9)) > 1e-6


def _nearest(name: str, n_params: float | None, *, is_mixture: bool) -> Shape | None:
    """The known shape of that name and size; the first of that name without a size."""
    named = [
        shape
        for pattern, shape in _known()
        if shape.is_mixture == is_mixture and pattern.search(name)
    ]
    if n_params is None:
        return named[0] if len({shape.n_params for shape in named}) == 1 else None

    def distance(shape: Shape) -> float:
        return abs(shape.n_params - n_params)

    near = [s for s in named if distance(s) < max(NEAR * n_params, min(SLACK, 0.45 * s.n_params))]
    return min(near, key=distance, default=None)


def _said_params(name: str) -> float | None:
    """The largest number of weights in a name: "qwen3 30b a3b"."""
    found = re.findall(r"(?<![\da.])(\d+(?:\.\d+)?) ?([bm])(?![a-z])", name)
    sizes = [float(n) * (1e9 if unit == "b" else 1e6) for n, unit in found]
    return max(sizes, default=None)


def _usual(name: str, n_params: float) -> Shape:
    usual = usual_shape(n_params)
    is_tied = usual.is_tied or "gemma" in name
    return Shape(n_params, usual.n_layers, usual.n_embd, usual.kv_bytes, usual.n_vocab, is_tied)


def _as_mixture(shape: Shape, name: str) -> Shape:
    """By the active weights in its name, else a tenth."""
    said = re.search(r"a(\d+(?:\.\d+)?)b", name)
    known = next((n for pattern, n in ACTIVE_B if re.search(pattern, name)), None)
    active = (float(said[1]) if said else known or 0.1 * shape.n_params / 1e9) * 1e9
    experts = EXPERT_SHARE * shape.n_params
    share = min(0.9, EXPERTS_USED * active / experts)
    n_layers, n_embd = (48, 2048) if active < 6e9 else (60, 4096)
    return replace(
        shape, n_layers=n_layers, n_embd=n_embd, kv_bytes=98_304, is_tied=False,
        n_vocab=min(USUAL_VOCABULARY, int(0.02 * shape.n_params / n_embd)),
        expert_params=experts, n_experts=128, n_used=max(1, round(128 * share)),
    )  # fmt: skip


@cache
def _known() -> tuple[tuple[re.Pattern[str], Shape], ...]:
    with TABLE.open(newline="", encoding="utf-8") as file:
        return tuple((re.compile(row["name"]), _shape(row)) for row in csv.DictReader(file))


def _shape(row: dict[str, str]) -> Shape:
    return Shape(
        n_params=float(row["params_b"]) * 1e9,
        n_layers=int(row["layers"]),
        n_embd=int(row["embd"]),
        kv_bytes=float(row["kv_bytes"]),
        n_vocab=int(row["vocab"]),
        is_tied=row["tied"] == "1",
        kind=row["kind"],
        expert_params=float(row["expert_b"] or 0) * 1e9,
        n_experts=int(row["experts"] or 0),
        n_used=int(row["used"] or 0),
        lookup_params=float(row["lookup_b"] or 0) * 1e9,
        window_tokens=int(row["window"]) if row["window"] else None,
        windowed_share=float(row["windowed"] or 0),
        attention_width=int(row["attention_width"]),
        state_bytes=float(row["state_mb"] or 0) * 1e6,
    )
