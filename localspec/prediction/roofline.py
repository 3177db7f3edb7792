"""How long a pass of a model takes on a machine: the roofline, term by term.

    T(n tokens, depth d) = overhead + sum over weights max(bytes / bandwidth, 2 n k / compute)
                         + sum over layers attention(cells(d), K type, V type, n)

with k the elements that a token multiplies. One pass streams the weights once for all of its tokens
and the cache of every sequence; layers on different devices take their time one after the other,
and where the device changes the hidden rows cross over, which is a hop. A prompt needs the output
matrix for its last token only; recurrent layers read and write a state for each sequence. Sources:
Williams et al. 2009 (roofline), Pope et al. 2022 (inference of transformers). It does not know
kernels: those are in the rates.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

from localspec.gguf.types import BY_NAME, GgmlType
from localspec.hardware.probe_results import Link
from localspec.model.facts import ModelFacts
from localspec.model.kv import types_of
from localspec.model.layers import Layer
from localspec.prediction.rates import (
    AttentionWork,
    Rates,
    Shares,
    Speed,
    Spread,
    Term,
    Test,
    WeightWork,
)
from localspec.settings import Attention

MAX_BREAK_EVEN, FLOAT_BYTES = 4096, 4
WAITING = 0.1
"""Of a micro-batch, for each further device that computes another one: by 2, 4 and 8 cards."""


@dataclass(frozen=True, slots=True)
class Share:
    """A device and how many of the layers it computes; the last share has the output matrix, and
    may have nothing else. `link`: to the processor, None where it is the processor, or unknown.
    `overlaps`: it reads a part of a prompt while the next device computes the one before."""

    rates: Rates
    n_layers: int
    link: Link | None = None
    overlaps: bool = False


@dataclass(frozen=True, slots=True)
class Width:
    """Tokens of one pass: of each sequence, and of how many logits are wanted."""

    n_tokens: int
    n_sequences: int
    n_outputs: int

    @property
    def n_all(self) -> int:
        return self.n_tokens * self.n_sequences


@dataclass(frozen=True, slots=True)
class PassTime:
    """Seconds of one pass by what they are spent on. `least_s`: of the bytes alone at the memory's
    rated bandwidth, as far as that is known."""

    weights_memory_s: float
    weights_compute_s: float
    attention_s: float
    overhead_s: float
    hops_s: float = 0.0
    least_s: float = 0.0

    @classmethod
    def sum_of(cls, parts: Iterable["PassTime"]) -> "PassTime":
        """Of passes, or of devices, one after the other."""
        known = list(parts)
        return cls(*(sum(getattr(part, name) for part in known) for name in cls.__slots__))

    def scaled(self, factor: float) -> "PassTime":
        """All of it shorter or longer."""
        return PassTime(*(factor * getattr(self, name) for name in self.__slots__))

    @property
    def shares(self) -> Shares:
        beside_s = self.overhead_s + self.hops_s
        return Shares(beside_s / self.seconds, self.attention_s / self.seconds)

    @property
    def seconds(self) -> float:
        return self.weights_s + self.attention_s + self.overhead_s + self.hops_s

    @property
    def weights_s(self) -> float:
        return self.weights_memory_s + self.weights_compute_s

    @property
    def bound(self) -> str:
        """What most of the time goes into."""
        parts = {
            "memory bandwidth": self.weights_memory_s,
            "compute": self.weights_compute_s,
            "attention": self.attention_s,
            "overhead": self.overhead_s,
            "hops": self.hops_s,
        }
        return max(parts, key=lambda name: parts[name])


class Roofline:
    """Times of one model on the devices that share its layers."""

    def __init__(self, facts: ModelFacts, shares: tuple[Share, ...], cache: Attention) -> None:
        self.facts, self.cache = facts, cache
        self.shares = (*(share for share in shares[:-1] if share.n_layers > 0), shares[-1])

    def with_cache(self, cache: Attention) -> "Roofline":
        """The same with its cache kept otherwise."""
        return Roofline(self.facts, self.shares, cache)

    def pass_time(
        self, n_tokens: int, depth: int, n_sequences: int = 1, *, is_prompt: bool = False
    ) -> PassTime:
        """One decode of `n_tokens` tokens for each of the sequences, all `depth` tokens long."""
        n_outputs = 1 if is_prompt else n_tokens * n_sequences
        return PassTime.sum_of(self._times(Width(n_tokens, n_sequences, n_outputs), depth))

    def share_s(self, depth: int) -> tuple[float, ...]:
        """Seconds of each share for one token, without the hops."""
        times = self._times(Width(1, 1, 1), depth)
        return tuple(time.seconds - time.hops_s for time in times)

    def _times(self, width: Width, depth: int) -> list[PassTime]:
        """Of each share, with the hop to it."""
        hops = self.hops_s(width)
        shares = zip(self.shares, self._layers_by_share, strict=True)
        times = [self._share_time(share, layers, width, depth) for share, layers in shares]
        return [replace(time, hops_s=hop_s) for time, hop_s in zip(times, hops, strict=True)]

    def hops_s(self, width: Width) -> tuple[float, ...]:
        """Seconds to reach each share from the one before, the first from the processor (which its
        own overhead covers), and with the last one's logits on their way back."""
        row_bytes = FLOAT_BYTES * self.facts.n_embd * width.n_all
        logits_bytes = FLOAT_BYTES * (self.facts.n_vocab or 0) * width.n_outputs
        found: list[float] = []
        before: Link | None = None
        for i, share in enumerate(self.shares):
            link = share.link
            hop_s = link.hop_s if link and i else 0.0
            found.append(hop_s + sum(each.carry_s(row_bytes) for each in (before, link) if each))
            before = link
        found[-1] += before.carry_s(logits_bytes) if before else 0.0
        return tuple(found)

    def seconds(self, n_tokens: int, depth: int, n_sequences: int = 1) -> float:
        return self.pass_time(n_tokens, depth, n_sequences).seconds

    def decode(self, depth: int, n_sequences: int = 1) -> Speed:
        """Tokens per second of all sequences together."""
        time = self.pass_time(1, depth, n_sequences)
        speed = Speed.of(n_sequences / time.seconds, self._spread("decode", time))
        return speed.at_most(n_sequences / time.least_s) if time.least_s else speed

    def prefill_s(self, n_tokens: int, depth: int = 0, n_batch: int = 512) -> float:
        """Time to read `n_tokens` in micro-batches of `n_batch`, up to an answer's first token."""
        return self._prompt_time(n_tokens, depth, n_batch).seconds

    def prefill(self, n_tokens: int, depth: int = 0) -> Speed:
        time = self._prompt_time(n_tokens, depth, 512)
        return Speed.of(n_tokens / time.seconds, self._spread("prefill", time))

    def _prompt_time(self, n_tokens: int, depth: int, n_batch: int) -> PassTime:
        """Devices that overlap wait for the slowest of them from the second micro-batch on."""
        parts = [
            self._times(Width(min(n_batch, n_tokens - at), 1, 1), depth + at)
            for at in range(0, n_tokens, n_batch)
        ]
        whole = PassTime.sum_of(time for part in parts for time in part)
        if not all(share.overlaps for share in self.shares):
            return whole
        first_s = PassTime.sum_of(parts[0]).seconds
        slowest_s = sum(max(time.seconds for time in part) for part in parts[1:])
        slowest_s *= 1 + WAITING * (len(self.shares) - 1)
        return whole.scaled(min(1.0, (first_s + slowest_s) / whole.seconds))

    def verify(self, width: int, depth: int, n_sequences: int = 1) -> float:
        """v(n) = T(n) / T(1): what a pass over `width` tokens a sequence costs in plain passes."""
        return self.seconds(width, depth, n_sequences) / self.seconds(1, depth, n_sequences)

    def break_even_batch(self) -> int | None:
        """The batch from which arithmetic takes longer than streaming; None above 4096."""

        def computes(n_tokens: int) -> bool:
            time = self.pass_time(n_tokens, 0)
            return time.weights_compute_s > time.weights_memory_s

        batches = range(1, MAX_BREAK_EVEN + 1)
        place = bisect_left(batches, True, key=computes)
        return batches[place] if place < len(batches) else None

    def _spread(self, test: Test, time: PassTime) -> Spread:
        return Spread.widest(share.rates.spread(test, time.shares) for share in self.shares)

    @cached_property
    def _layers_by_share(self) -> tuple[Counter[Layer], ...]:
        ends = list(accumulate(share.n_layers for share in self.shares))
        starts = [0, *ends[:-1]]
        return tuple(
            Counter(self.facts.layers[start:end]) for start, end in zip(starts, ends, strict=True)
        )

    def _share_time(
        self, share: Share, layers: Counter[Layer], width: Width, depth: int
    ) -> PassTime:
        terms = [share.rates.weights(work, n) for work, n in self._weights(share, width)]
        if state := self._state(layers, width.n_sequences):
            terms.append(share.rates.weights(state, 1))
        attending = [
            (count * width.n_sequences, share.rates.attention(work, width.n_tokens))
            for layer, count in layers.items()
            if (work := self._attention(layer, width.n_tokens, depth)) is not None
        ]
        return PassTime(
            weights_memory_s=_seconds(terms, "memory"),
            weights_compute_s=_seconds(terms, "compute"),
            attention_s=sum(n * term.seconds for n, term in attending),
            overhead_s=share.rates.overhead_s(share.n_layers, width.n_all),
            least_s=sum(term.least_s for term in terms)
            + sum(n * term.least_s for n, term in attending),
        )

    def _weights(self, share: Share, width: Width) -> list[tuple[WeightWork, int]]:
        """Weights by type, and how many tokens multiply them."""
        layers = self.facts.n_layers
        is_last = float(share is self.shares[-1])
        works: dict[tuple[GgmlType, int, bool], WeightWork] = {}
        for part in self.facts.streamed(width.n_all):
            is_output = part.role in ("output", "embedding")
            scale = is_last if is_output else share.n_layers / layers
            is_expert = part.role == "experts"
            key = part.type, width.n_outputs if is_output else width.n_all, is_expert
            known = works.get(key, WeightWork(part.type, 0.0, 0.0, is_expert))
            works[key] = WeightWork(
                part.type,
                known.n_bytes + scale * part.n_bytes,
                known.n_elements + scale * part.n_elements,
                is_expert,
            )
        return [(work, n) for (_, n, _), work in works.items() if work.n_bytes]

    def _state(self, layers: Counter[Layer], n_sequences: int) -> WeightWork | None:
        """The states of recurrent layers, which every pass reads and writes."""
        n_all = sum(layer.is_recurrent for layer in self.facts.layers)
        n_own = sum(n for layer, n in layers.items() if layer.is_recurrent)
        n_bytes = 2 * n_sequences * (self.facts.state_bytes or 0) * n_own / (n_all or 1)
        return WeightWork(BY_NAME["F32"], n_bytes, n_bytes / 4) if n_bytes else None

    def _attention(self, layer: Layer, n_tokens: int, depth: int) -> AttentionWork | None:
        if not layer.attends:
            return None
        seen = depth + (n_tokens + 1) // 2  # on average a token sees half of its batch
        n_cells = seen if layer.window_tokens is None else min(seen, layer.window_tokens)
        return AttentionWork(
            layer.n_heads,
            layer.n_kv_heads,
            layer.key_size,
            layer.value_size,
            n_cells,
            *types_of(self.cache),
            self.cache.is_flash,
        )


def _seconds(terms: list[Term], bound: str) -> float:
    return sum(term.seconds for term in terms if term.bound == bound)
