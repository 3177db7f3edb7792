"""What the headers of the models in models.toml say, known without a network.

headers.json is made by `scripts/research/run build-catalog` from published configurations, each
with its sources: layers, cache, state, and the elements of the weights by role. A file's own
quantization is applied to them; a mixture that is not in the table of quantizations counts as the
nearest by name. What only a file knows is left out: the tokenizer and small biases.
"""

import json
from dataclasses import replace
from functools import cache
from importlib import resources
from typing import Any

from localspec.gguf.types import BY_NAME
from localspec.model.facts import ModelFacts
from localspec.model.layers import Layer
from localspec.model.tokenizer import Tokenizer
from localspec.model.weights import WeightGroup
from localspec.prediction.quants import quant_named
from localspec.registry.catalog import Entry
from localspec.registry.resolve import quantization_of

_NO_TOKENIZER = Tokenizer(None, None, None, None, None, None, None)
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
        tokenizer=_NO_TOKENIZER,
        sampling={},
        state_bytes=written["state_bytes"],
        layers=tuple(Layer(*layer) for n, *layer in written["layers"] for _ in range(n)),
        weights=groups,
    )


def _group(role: Any, kind: str, is_expert: bool, is_streamed: bool, n: int) -> WeightGroup:
    type_ = BY_NAME[kind]
    n_bytes = round(n * type_.bits_per_element / 8)
    return WeightGroup(role, type_, n, n_bytes, is_expert, is_streamed)
