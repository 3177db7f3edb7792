"""Runs that somebody measured, here or on another machine, and what models and devices they name.

A run names its model by file, weights and bytes. Its facts are those of the model in question where
both agree, of the file where it is here, of the catalogue by its number of weights, or the shape
usual at its size. Such guesses are as wrong for one device as for another, so they cancel out where
two devices ran the model.

`usual_shape` is that of published dense models since 2023; the embedding of small ones is tied.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from localspec.errors import LocalspecError
from localspec.forecast.known_models import known_facts
from localspec.gguf.reader import read_header
from localspec.gguf.types import BY_NAME
from localspec.hardware.devices import Device, match_reported
from localspec.model.facts import ModelFacts
from localspec.model.layers import Layer
from localspec.model.tokenizer import Tokenizer
from localspec.model.usable import usable_facts
from localspec.model.weights import WeightGroup
from localspec.prediction.quants import QUANTS, Quant, quant_named
from localspec.prediction.rates import Test
from localspec.registry.catalog import load_catalog
from localspec.registry.variants import quantization_of
from localspec.settings import Attention


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


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """Plain decoding or reading of one sequence. `machine_key`: of ours, else empty.

    `predicted_per_s`: what was predicted there, None where that is not known. `file`: the model's,
    which need not be here.
    """

    source: str
    device: str
    backend: str
    file: str
    n_params: int
    weight_bytes: int
    type: str
    test: Test
    n_tokens: int
    depth: int
    attention: Attention
    tokens_per_s: float
    predicted_per_s: float | None = None
    machine_key: str = ""

    @property
    def table_device(self) -> Device | None:
        """The device by its published figures; None for a processor or an unknown one."""
        found = match_reported(self.device).device
        return found if found and found.kind != "cpu" and self.backend != "cpu" else None

    @property
    def text(self) -> str:
        """For people."""
        test = f"tg{self.n_tokens}" if self.test == "decode" else f"pp{self.n_tokens}"
        depth = f" @ d{self.depth}" if self.depth else ""
        return f"{Path(self.file).stem} {test}{depth} on {self.device}"

    def is_of(self, other: "ModelFacts | MeasuredRun") -> bool:
        """Whether its model is this one or that of another run, in this quantization."""
        return _are_near(self.n_params, other.n_params, NEAR_PARAMS) and _are_near(
            self.weight_bytes, other.weight_bytes, NEAR_BYTES
        )

    def facts(self, models: Sequence[ModelFacts]) -> ModelFacts:
        """Of its model, the nearest that is known; `models` are those in question."""
        asked = next((facts for facts in models if self.is_of(facts)), None)
        return asked or _known_facts(self.file, self.n_params, self.weight_bytes, self.type)


@cache
def _known_facts(file: str, n_params: int, weight_bytes: int, type_: str) -> ModelFacts:
    here = _facts_here(file)
    if here and _are_near(here.n_params, n_params, NEAR_PARAMS):
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
    near = [f for f in known if f and _are_near(f.n_params, n_params, ROUNDED_PARAMS)]
    return min(near, key=lambda facts: abs(facts.n_params - n_params), default=None)


def _usual(n_params: int, quantization: str) -> ModelFacts:
    """A dense transformer of the size, which it need not be."""
    shape = usual_shape(n_params)
    table = shape.n_vocab * shape.n_embd
    matrices = max(table, n_params - table * (1 if shape.is_tied else 2))
    n_heads = max(1, shape.kv_bytes // (4 * shape.n_layers * HEAD))
    layer = Layer(shape.n_embd // HEAD, n_heads, HEAD, HEAD, None, True, False)
    groups = [_group("feed_forward", matrices), _group("embedding", table, shape.is_tied)]
    if not shape.is_tied:
        groups.append(_group("output", table))
    facts = ModelFacts(
        path="", architecture="", name=None, file_type="F16", n_params=n_params,
        weight_bytes=2 * n_params, n_embd=shape.n_embd, n_ctx_train=None, n_ctx_scaled=None,
        n_vocab=shape.n_vocab, n_experts=0, n_experts_used=0,
        tokenizer=Tokenizer(None, None, None, None, None, None, None), state_bytes=0,
        layers=(layer,) * shape.n_layers, weights=tuple(groups),
    )  # fmt: skip
    return _quant(quantization).applied(facts)


def _group(role: str, n_elements: int, is_streamed: bool = True) -> WeightGroup:
    return WeightGroup(role, BY_NAME["F16"], n_elements, 2 * n_elements, False, is_streamed)  # type: ignore[arg-type]


def _quant(name: str) -> Quant:
    return quant_named(name) or next(quant for quant in QUANTS if quant.name == "Q4_K_M")


def _scaled(facts: ModelFacts, weight_bytes: int) -> ModelFacts:
    """With all weights as much smaller or larger as the file is."""
    share = weight_bytes / sum(group.n_bytes for group in facts.weights)
    groups = (replace(group, n_bytes=round(share * group.n_bytes)) for group in facts.weights)
    return replace(facts, weights=tuple(groups), weight_bytes=weight_bytes)


def _are_near(one: float, other: float, share: float) -> bool:
    return abs(one - other) <= share * max(one, other)
