"""Quantizations by name: what a model weighs in another one, and what it loses.

A quantization is a mixture: most matrices in one type, some in a better one, and the output matrix
or tied embedding in another. The shares reproduce the bits per weight that llama.cpp's
tools/quantize/README.md gives for Llama-3.1-8B within 2 %. Quality is published for LLaMA-3-8B on
wikitext-2 (tools/perplexity/README.md): Kullback-Leibler divergence in nats a token against F16;
smaller models lose more, larger ones less.
"""

from collections import Counter
from dataclasses import dataclass, replace

from localspec.gguf.types import BY_NAME, GgmlType
from localspec.model.facts import ModelFacts
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

    @property
    def bits_per_weight(self) -> float:
        """Of its matrices on average, the output's not counted."""
        main, better = (BY_NAME[name].bits_per_element for name in (self.main, self.better))
        return main + self.better_share * (better - main)

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
"""Those that most repositories have."""

FURTHER = (
    Quant("Q5_1", "Q5_1", "Q5_1", 0.0, "Q6_K", 0.01805),
    Quant("Q5_0", "Q5_0", "Q5_0", 0.0, "Q6_K", 0.02224),
    Quant("IQ4_NL", "IQ4_NL", "Q5_K", 0.05, "Q6_K", 0.03574),
    Quant("Q3_K_L", "Q3_K", "Q5_K", 0.34, "Q6_K", 0.08718),
    Quant("IQ3_M", "IQ3_S", "Q4_K", 0.12, "Q6_K", 0.10253),
    Quant("IQ3_S", "IQ3_S", "Q4_K", 0.02, "Q6_K", 0.11128),
    Quant("IQ3_XS", "IQ3_XXS", "IQ3_S", 0.59, "Q6_K", 0.13869),
    Quant("IQ3_XXS", "IQ3_XXS", "IQ3_S", 0.09, "Q5_K", 0.18363),
    Quant("Q3_K_S", "Q3_K", "Q3_K", 0.0, "Q6_K", 0.22823),
    Quant("IQ2_M", "IQ2_S", "IQ3_S", 0.21, "Q5_K", 0.32599),
    Quant("Q2_K_S", "Q2_K", "Q4_K", 0.05, "Q6_K", 0.40336),
    Quant("IQ2_S", "IQ2_XS", "IQ3_S", 0.21, "Q5_K", 0.43920),
    Quant("IQ2_XS", "IQ2_XS", "Q4_K", 0.03, "Q5_K", 0.54629),
    Quant("IQ2_XXS", "IQ2_XXS", "Q4_K", 0.04, "Q5_K", 0.81202),
)
"""The IQ types and Q2_K_S were measured with an importance matrix, which they are made with."""
_BY_NAME = {quant.name: quant for quant in (*QUANTS, *FURTHER)}
_NEAREST = (("_XL", "_L"), ("_L", "_M"), ("_M", ""), ("_K", "_0"))
"""What stands in for a mixture without a published quality: `Q6_K_L` is mostly Q6_K."""


def quant_named(name: str) -> Quant | None:
    """The mixture that a quantization's name means; None for one that is not known.

    Dynamic ones (`UD-`, `_XL`, `_L`) count as the nearest of the table: their makers publish
    no divergences of this model.
    """
    bare = name.removeprefix("UD-")
    for end, other in _NEAREST:
        if bare in _BY_NAME:
            break
        bare = bare.removesuffix(end) + other if bare.endswith(end) else bare
    return _BY_NAME.get("F16" if bare in ("BF16", "F32") else bare)


def variants_of(facts: ModelFacts) -> tuple[ModelFacts, ...]:
    """The model in every quantization of the table."""
    return tuple(quant.for_rows_of(facts.n_embd).applied(facts) for quant in QUANTS)
