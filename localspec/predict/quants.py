"""What a model would weigh in another quantization, and what that costs in quality.

A quantization by name is a mixture: most matrices in one type, some in a better one, and the output
matrix or tied embedding in another. The shares reproduce the bits per weight that llama.cpp's
tools/quantize/README.md gives for Llama-3.1-8B within 2 %. Quality is published for LLaMA-3-8B on
wikitext-2 (tools/perplexity/README.md): Kullback-Leibler divergence in nats a token against F16;
smaller models lose more, larger ones less.
"""

from collections import Counter
from dataclasses import dataclass, replace

from localspec.model.facts import ModelFacts
from localspec.model.ggml_types import BY_NAME, GgmlType
from localspec.model.weights import WeightGroup


@dataclass(frozen=True, slots=True)
class Quant:
    """A mixture of types; `better_share` of the elements of matrices are of type `better`.

    `kld` None: not published for that model.
    """

    name: str
    main: str
    better: str
    better_share: float
    output: str
    kld: float | None

    def applied(self, facts: ModelFacts) -> ModelFacts:
        """The same model with its matrices in this mixture."""
        groups = [part for group in facts.weights for part in self._converted(group)]
        size = sum(group.n_bytes for group in groups)
        return replace(facts, weights=tuple(groups), weight_bytes=size, file_type=self.name)

    def _converted(self, group: WeightGroup) -> list[WeightGroup]:
        if group.type.name == "F32" or group.role == "norm":
            return [group]
        if group.role == "output" or (group.role == "embedding" and group.is_streamed):
            return [_as(group, BY_NAME[self.output], group.n_elements)]
        n_better = round(self.better_share * group.n_elements)
        parts = Counter({self.main: group.n_elements - n_better})
        parts[self.better] += n_better
        return [_as(group, BY_NAME[name], n) for name, n in parts.items() if n]

    def for_rows_of(self, n_elements: int) -> "Quant":
        """The same with what llama.cpp falls back to where blocks of 256 do not fill a row."""
        if n_elements % 256 == 0:
            return self
        main, better, output = (
            FALLBACKS.get(name, name) for name in (self.main, self.better, self.output)
        )
        return replace(self, main=main, better=better, output=output)


def _as(group: WeightGroup, kind: GgmlType, n_elements: int) -> WeightGroup:
    n_bytes = round(n_elements * kind.bits_per_element / 8)
    return replace(group, type=kind, n_elements=n_elements, n_bytes=n_bytes)


FALLBACKS = {
    "IQ4_XS": "IQ4_NL",
    "Q2_K": "IQ4_NL",
    "Q3_K": "IQ4_NL",
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}
"""From src/llama-quant.cpp of llama.cpp."""

QUANTS = (
    Quant("F16", "F16", "F16", 0.0, "F16", 0.00055),
    Quant("Q8_0", "Q8_0", "Q8_0", 0.0, "Q8_0", 0.00136),
    Quant("Q6_K", "Q6_K", "Q6_K", 0.0, "Q6_K", 0.00545),
    Quant("Q5_K_M", "Q5_K", "Q6_K", 0.12, "Q6_K", 0.01076),
    Quant("Q5_K_S", "Q5_K", "Q5_K", 0.0, "Q6_K", 0.01660),
    Quant("Q4_K_M", "Q4_K", "Q6_K", 0.14, "Q6_K", 0.03127),
    Quant("Q4_K_S", "Q4_K", "Q5_K", 0.05, "Q6_K", 0.04314),
    Quant("IQ4_XS", "IQ4_XS", "Q5_K", 0.03, "Q6_K", 0.03633),
    Quant("Q4_1", "Q4_1", "Q4_1", 0.0, "Q6_K", 0.07168),
    Quant("Q4_0", "Q4_0", "Q4_0", 0.0, "Q6_K", 0.07194),
    Quant("Q3_K_M", "Q3_K", "Q4_K", 0.30, "Q6_K", 0.10191),
    Quant("Q2_K", "Q2_K", "Q3_K", 0.37, "Q6_K", 0.44513),
)


def variants_of(facts: ModelFacts) -> tuple[ModelFacts, ...]:
    """The model in every quantization of the table."""
    return tuple(quant.for_rows_of(facts.n_embd).applied(facts) for quant in QUANTS)
