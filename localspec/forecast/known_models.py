"""What is known of models whose files are not here, without a network.

headers.json is made by `scripts/research/run build-catalog` from published configurations of the
models in models.toml, each with its sources: layers, cache, state, and the elements of the weights
by role. A file's own quantization is applied to them; a mixture that is not in the table of
quantizations counts as the nearest by name. What only a file knows is left out: the tokenizer and
small biases.

Of models that nobody published so, `usual_shape` is that of published dense models since 2023; the
embedding of small ones is tied.
"""

import json
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from math import isclose
from pathlib import Path
from typing import Any

from localspec.errors import LocalspecError
from localspec.gguf.reader import read_header
from localspec.gguf.types import BY_NAME
from localspec.model.facts import ModelFacts
from localspec.model.layers import Layer
from localspec.model.tokenizer import Tokenizer
from localspec.model.usable import usable_facts
from localspec.model.weights import WeightGroup
from localspec.prediction.quants import QUANTS, Quant, quant_named
from localspec.registry.catalog import Entry, load_catalog
from localspec.registry.resolve import quantization_of

AS_TRAINED = frozenset({"MXFP4"})
"""Quantizations whose types are in headers.json already."""


def known_facts(entry: Entry, quantization: str | None = None) -> ModelFacts | None:
    """A model in its file's quantization or another; None if nothing is known of it."""
    written = _headers().get(entry.name)
    name = quantization or quantization_of(entry.file) or ""
    if written is None:
        return None
    if name in AS_TRAINED:
        return replace(_facts(entry, written), file_type=name)
    quant = quant_named(name)
    if quant is None:
        return None
    facts = quant.for_rows_of(written["n_embd"]).applied(_facts(entry, written))
    facts = replace(facts, file_type=name)
    if quantization in (None, quantization_of(entry.file)) and entry.file_bytes:
        return replace(facts, weight_bytes=entry.file_bytes)
    return facts


def header_sources(entry: Entry) -> tuple[str, ...]:
    """Where the facts were read."""
    return tuple(_headers().get(entry.name, {}).get("sources", ()))


@cache
def _headers() -> dict[str, Any]:
    text = (resources.files("localspec.forecast") / "headers.json").read_text("utf-8")
    return json.loads(text)


def _facts(entry: Entry, written: dict[str, Any]) -> ModelFacts:
    groups = tuple(_group(*group) for group in written["weights"])
    return ModelFacts(
        path=entry.name,
        architecture=written["architecture"],
        name=entry.title,
        file_type="F16",
        n_params=sum(group.n_elements for group in groups),
        weight_bytes=sum(group.n_bytes for group in groups),
        n_embd=written["n_embd"],
        n_ctx_train=written["n_ctx_train"],
        n_ctx_scaled=None,
        n_vocab=written["n_vocab"],
        n_experts=written["n_experts"],
        n_experts_used=written["n_experts_used"],
        tokenizer=Tokenizer(),
        sampling={},
        state_bytes=written["state_bytes"],
        layers=tuple(Layer(*layer) for n, *layer in written["layers"] for _ in range(n)),
        weights=groups,
    )


def _group(role: Any, kind: str, is_expert: bool, is_streamed: bool, n: int) -> WeightGroup:
    type_ = BY_NAME[kind]
    n_bytes = round(n * type_.bits_per_element / 8)
    return WeightGroup(role, type_, n, n_bytes, is_expert, is_streamed)


@dataclass(frozen=True, slots=True)
class UsualShape:
    """`kv_bytes`: of F16 keys and values that a token caches; `n_vocab` rows of a table."""

    n_layers: int
    n_embd: int
    kv_bytes: int
    n_vocab: int
    is_tied: bool


# Layers, embedding length and KV bytes usual up to so many 10^9 weights.
_USUAL: tuple[tuple[float, int, int, int], ...] = (
    (0.8, 24, 1_024, 12_288),
    (1.7, 16, 2_048, 32_768),
    (2.5, 28, 2_048, 50_000),
    (3.6, 28, 3_072, 114_688),
    (5.0, 36, 2_560, 147_456),
    (9.9, 32, 4_096, 131_072),
    (12.9, 40, 5_120, 163_840),
    (16.0, 48, 5_120, 196_608),
    (25.0, 40, 5_120, 163_840),
    (28.0, 62, 5_376, 300_000),
    (36.0, 64, 5_120, 262_144),
    (90.0, 80, 8_192, 327_680),
    (float("inf"), 94, 8_192, 400_000),
)
USUAL_VOCABULARY = 151_936
_TIED_BELOW = 5e9


def usual_shape(n_params: float) -> UsualShape:
    """Of a dense model with so many weights."""
    _, n_layers, n_embd, kv_bytes = next(row for row in _USUAL if n_params <= row[0] * 1e9)
    n_vocab = min(USUAL_VOCABULARY, int(0.3 * n_params / n_embd))
    return UsualShape(n_layers, n_embd, kv_bytes, n_vocab, n_params < _TIED_BELOW)


NEAR_PARAMS, NEAR_BYTES = 0.005, 0.02
"""By how much two files of one model in one quantization differ at most."""
ROUNDED_PARAMS = 0.015
HEAD = 128
_WORDS = {" - Small": "_S", " - Medium": "_M", " - Large": "_L", " - ": "_"}


@cache
def nearest_facts(file: str, n_params: int, weight_bytes: int, type_: str) -> ModelFacts:
    """Those of a model that somebody ran: of its file where it is here, of the catalogue by its
    number of weights, or of the shape usual at its size. Such guesses are as wrong for one device
    as for another, so they cancel out where two devices ran the model."""
    here = _facts_here(file)
    if here and isclose(here.n_params, n_params, rel_tol=NEAR_PARAMS):
        return here
    quantization = quantization_name(file, type_)
    found = _of_catalogue(n_params, quantization) or _usual(n_params, quantization)
    return _scaled(found, weight_bytes)


def _facts_here(file: str) -> ModelFacts | None:
    try:
        return usable_facts(read_header(Path(file))) if Path(file).is_file() else None
    except (LocalspecError, OSError):
        return None


def quantization_name(file: str, type_: str) -> str:
    """Of a file's name, else of what an engine calls it: "qwen2 7B Q4_K - Medium"."""
    words = type_
    for text, ending in _WORDS.items():
        words = words.replace(text, ending)
    return quantization_of(file) or quantization_of(words.replace(" ", "-")) or ""


def _of_catalogue(n_params: int, quantization: str) -> ModelFacts | None:
    known = (known_facts(entry, quantization or None) for entry in load_catalog().values())
    near = [f for f in known if f and isclose(f.n_params, n_params, rel_tol=ROUNDED_PARAMS)]
    return min(near, key=lambda facts: abs(facts.n_params - n_params), default=None)


def _usual(n_params: int, quantization: str) -> ModelFacts:
    """A dense transformer of the size, which it need not be."""
    shape = usual_shape(n_params)
    table = shape.n_vocab * shape.n_embd
    matrices = max(table, n_params - table * (1 if shape.is_tied else 2))
    n_heads = max(1, shape.kv_bytes // (4 * shape.n_layers * HEAD))
    layer = Layer(shape.n_embd // HEAD, n_heads, HEAD, HEAD, None, True, False)
    groups = [
        _group("feed_forward", "F16", False, True, matrices),
        _group("embedding", "F16", False, shape.is_tied, table),
    ]
    if not shape.is_tied:
        groups.append(_group("output", "F16", False, True, table))
    facts = ModelFacts(
        path="", architecture="", name=None, file_type="F16", n_params=n_params,
        weight_bytes=2 * n_params, n_embd=shape.n_embd, n_ctx_train=None, n_ctx_scaled=None,
        n_vocab=shape.n_vocab, n_experts=0, n_experts_used=0,
        tokenizer=Tokenizer(), state_bytes=0,
        layers=(layer,) * shape.n_layers, weights=tuple(groups),
    )  # fmt: skip
    return _quant(quantization).applied(facts)


def _quant(name: str) -> Quant:
    return quant_named(name) or next(quant for quant in QUANTS if quant.name == "Q4_K_M")


def _scaled(facts: ModelFacts, weight_bytes: int) -> ModelFacts:
    """With all weights as much smaller or larger as the file is."""
    share = weight_bytes / sum(group.n_bytes for group in facts.weights)
    groups = (replace(group, n_bytes=round(share * group.n_bytes)) for group in facts.weights)
    return replace(facts, weights=tuple(groups), weight_bytes=weight_bytes)
