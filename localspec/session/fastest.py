"""A model's settings as they are fastest by what this machine's ways take.

For a text as long as the context is expected to become, and an answer half as long. Which kernel of
attention is best changes with depth: on x86 the fused one costs less at first and more per token. A
micro-batch of a prompt sees a window and itself, so that a smaller one costs less where layers
slide; elsewhere none was clearly faster than 512 tokens. Weights that are read lie in large pages,
which a pass reads faster, and take time and memory first.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from localspec.engine.base import EngineConfig
from localspec.engine.cpu_ways import USUAL_TYPE, AttentionWay, Heads, Ways, WeightsWay, named
from localspec.engine.threads import fastest
from localspec.gguf.types import RANDOM_TYPES
from localspec.hardware.detect import available_memory_bytes
from localspec.model.facts import ModelFacts
from localspec.model.layers import Layer
from localspec.session.placing import host_of
from localspec.session.session_config import Expected
from localspec.settings import ROWS, FlashAttention

ANSWER_SHARE = 0.5
"""An answer is taken to be half as long as what it is behind."""
CLEARLY = {"repack": 1.3, "mmap": 1.0, "flash_attn": 1.005, "ubatch": 1.03}
CLEARLY_READ = 1.02
"""Noise must not move a default: where weights lie in memory makes a quarter of a difference. Read
weights gain a tenth where files are cached in small pages; in large ones their 1 to 2 % are noise.
Of kernels the estimate promises less of the plain one than it brings: behind 512 tokens and more it
was 0 to 12 % faster than estimated (docs/measurements/speed.md)."""
SMALL_BATCH = 256
"""Tokens of the smaller micro-batch; 128 were slower than 512 (docs/measurements/speed.md)."""
MOST_READING = 1.25
"""How much longer a prompt may take with the kernel that decodes faster."""
READ_SHARE = 0.5
"""Of the free memory, for weights that are read: other programs cannot have them back. A bound of
caution, which nobody measured."""
MEASURED_ELEMENTS = 5 * (2 * 2048 * 2048 + 2 * 2048 * 512 + 3 * 2048 * 8192)
"""Weights that a token passes in the measured model, but for its small vocabulary."""


def repacks_here(config: EngineConfig, facts: ModelFacts) -> bool:
    """Whether most weights are repacked on this processor."""
    host = host_of(config.settings)
    return bool(host and host.copies(_most_streamed(facts)))


def main_type(facts: ModelFacts) -> str:
    """The type of most of the weights that a token streams; of those that cannot be made at random,
    one that is as usual."""
    name = _most_streamed(facts)
    return name if name in RANDOM_TYPES else USUAL_TYPE


def _most_streamed(facts: ModelFacts) -> str:
    n_bytes: Counter[str] = Counter()
    for group in facts.weights:
        if group.is_streamed:
            n_bytes[group.type.name] += group.n_bytes
    return max(n_bytes, key=lambda each: n_bytes[each], default=USUAL_TYPE)


def main_heads(facts: ModelFacts) -> Heads | None:
    """Those of most layers; None where keys and values differ or no layer attends."""
    counted = Counter(
        (layer.n_heads, layer.n_kv_heads, layer.key_size) for layer in _attending(facts)
    )
    heads = max(counted, key=lambda each: counted[each], default=None)
    is_plain = all(layer.key_size == layer.value_size for layer in _attending(facts))
    return heads if heads and is_plain and all(heads) else None


def _attending(facts: ModelFacts) -> list[Layer]:
    return [layer for layer in facts.layers if layer.attends]


@dataclass(frozen=True, slots=True)
class FastestHere:
    """A model's settings, what this machine's ways take, and the text to be expected."""

    config: EngineConfig
    facts: ModelFacts
    ways: Ways
    expected: Expected

    def of(self, names: frozenset[str]) -> tuple[EngineConfig, list[str]]:
        """The settings in `names` as they are fastest, and a clause on each that differs."""
        now, reasons = self, list[str]()
        for name, choices in _CHOICES:
            found = {value: now.with_setting(name, value) for value in choices(now)}
            usual = getattr(now.config.settings, name)
            usual = now.config.n_threads_batch if name == "threads_batch" else usual
            if name not in names or usual not in found or len(found) < 2:
                continue
            most_s = MOST_READING * found[usual].read_s
            if name == "flash_attn":
                found = {value: each for value, each in found.items() if each.read_s <= most_s}
            seconds = {value: each._cost_s(name) for value, each in found.items()}
            value = _clearly_best(name, seconds, usual)
            if value != usual:
                gain = seconds[usual] / seconds[value]
                reasons.append(f"{ROWS[name].text(value)} ({gain:.2f} x{now._where(name)})")
                now = found[value]
        return now.config, reasons

    def with_setting(self, name: str, value: Any) -> "FastestHere":
        return replace(self, config=self.config.with_settings(**{name: value}))

    def _where(self, name: str) -> str:
        places = {"flash_attn": f", {self.depth:,} tokens deep", "ubatch": ", in long prompts"}
        return places.get(name, "")

    def _cost_s(self, name: str) -> float:
        """Seconds that decide about a setting."""
        if name == "threads_batch":
            return self.read_s
        if name == "ubatch":  # short texts are read as fast with either
            return replace(self, expected=Expected(self.config.n_ctx)).read_s
        if name in ("repack", "mmap"):
            return self.text_s + self.load_s / self.expected.n_texts
        return self.token_s

    @property
    def depth(self) -> int:
        return max(1, min(self.expected.depth, self.config.n_ctx))

    @property
    def text_s(self) -> float:
        """Of reading a text and answering it."""
        return self.depth * (self.read_s + ANSWER_SHARE * self.token_s)

    @property
    def token_s(self) -> float:
        """Of one token behind the text, beside others behind theirs."""
        settings = self.config.settings
        n = settings.n_sequences if settings.kv_unified else 1
        token_at = partial(AttentionWay.token_at, n_users=n)
        return self.weights_s + self._attention_s(token_at, self.depth)

    @property
    def weights_s(self) -> float:
        """Of the weights in it; 0 where it is not known."""
        return self._weights_s(lambda way: way.token_s, self.config.n_threads)

    @property
    def read_s(self) -> float:
        """Of one token of the text."""
        weights_s = self._weights_s(lambda way: way.read_s, self.config.n_threads_batch, 1 / 5)
        n_beside = self.config.settings.ubatch
        return weights_s + self._attention_s(AttentionWay.read_at, self.depth / 2, n_beside)

    @property
    def load_s(self) -> float:
        """Of loading the weights."""
        return self._weights_s(lambda way: way.load_s, self.config.n_threads)

    def _weights_s(
        self, seconds: Callable[[WeightsWay], float], n_threads: int, share: float = 1.0
    ) -> float:
        """0 where it is not known, which is the same for all that are compared then. `share`: what
        of the measured model's weights it took."""
        repack = repacks_here(self.config, self.facts)
        key = repack, self.config.settings.mmap and not repack, n_threads
        known = next((seconds(way) for way in self.weights_ways if way.key == key), 0.0)
        return known * self.facts.active_params / (share * MEASURED_ELEMENTS)

    @property
    def weights_ways(self) -> Iterable[WeightsWay]:
        return self.ways.weights.get(main_type(self.facts), ())

    def _attention_s(
        self, seconds: Callable[[AttentionWay, float], float], depth: float, n_beside: int = 0
    ) -> float:
        """Of all layers; a window ends what a layer sees, but for the tokens of its pass."""
        settings, ways = self.config.settings, {way.key: way for way in self.attention_ways}
        way = ways.get((settings.attention.is_flash, settings.kv_k, settings.kv_v))
        windows = (layer.window_tokens for layer in _attending(self.facts))
        seen = (min(depth, window + n_beside) if window else depth for window in windows)
        return sum(seconds(way, n_cells) for n_cells in seen if way)

    @property
    def attention_ways(self) -> Iterable[AttentionWay]:
        heads = main_heads(self.facts)
        return self.ways.attention.get(named(heads), ()) if heads else ()


def _counts(choice: FastestHere) -> tuple[int, ...]:
    is_calm = choice.ways.is_calm(main_type(choice.facts))  # a neighbour takes a thread's time
    known = {way.n_threads for way in choice.weights_ways if is_calm}
    return tuple(sorted(known | {choice.config.n_threads, choice.config.n_threads_batch}))


def _kernels(choice: FastestHere) -> tuple[FlashAttention, ...]:
    types = choice.config.settings.kv_k, choice.config.settings.kv_v
    known = {way.is_flash for way in choice.attention_ways if way.types == types}
    return ("auto", "off") if len(known) > 1 else ("auto",)


def _repacks(choice: FastestHere) -> tuple[bool, ...]:
    return tuple({way.repack for way in choice.weights_ways})


def _mappings(choice: FastestHere) -> tuple[bool, ...]:
    """Reading takes as much memory again as the file that stays cached, and gains nothing of what
    is copied anyway."""
    fits = choice.facts.weight_bytes <= READ_SHARE * available_memory_bytes()
    is_copied = repacks_here(choice.config, choice.facts)
    mapped_s, read_s = (choice.with_setting("mmap", value).weights_s for value in (True, False))
    is_faster = mapped_s > CLEARLY_READ * read_s > 0
    return (True, False) if fits and is_faster and not is_copied else (True,)


def _micro_batches(choice: FastestHere) -> tuple[int, ...]:
    """Rows that are scored fill half of one at most."""
    usual, n_scored = choice.config.settings.ubatch, choice.config.n_outputs
    return (usual, SMALL_BATCH) if usual > SMALL_BATCH >= 2 * n_scored else (usual,)


_CHOICES: tuple[tuple[str, Callable[[FastestHere], tuple[Any, ...]]], ...] = (
    ("threads", _counts),
    ("threads_batch", _counts),
    ("repack", _repacks),
    ("mmap", _mappings),
    ("flash_attn", _kernels),
    ("ubatch", _micro_batches),
)
"""In the order in which they are decided."""


def _clearly_best(name: str, seconds: Mapping[Any, float], usual: Any) -> Any:
    """The value with the shortest time; `usual` where that is not clearly slower."""
    if name.startswith("threads"):
        return fastest({n: s for n, s in seconds.items() if s > 0}, usual)
    best = min(seconds, key=lambda value: seconds[value])
    return best if seconds[usual] > CLEARLY[name] * seconds[best] else usual
