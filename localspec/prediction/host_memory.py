"""What loading adds to a processor's memory: a second copy of repacked weights, and the program.

ggml copies weights of some types into the order that its matrix kernels read. The copy is the
program's own; the mapped original can be dropped and is never read again. Only what is read instead
of mapped lies there once. Tied embeddings are copied for the output matrix, and stay for the input.

Types by instruction set: ggml/src/ggml-cpu/repack.cpp and ggml-cpu/amx of llama.cpp 0.5.0, for
matrices whose rows come in eights (AMX: 32), which all but odd vocabularies have. AMX does not
multiply experts, so theirs go to the other kernels. Not known here: KleidiAI, RISC-V and SpaceMiT.
The program's own size is fitted to two measured models (docs/measurements/memory.md).
"""

from dataclasses import dataclass

from localspec.model.facts import ModelFacts
from localspec.model.weights import WeightGroup

AMX = frozenset({"amx_int8", "avx512_vnni"})
_AMX_TYPES = frozenset({"Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "F16"})
_DOT_PRODUCT = frozenset({"Q4_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "MXFP4", "Q8_0", "Q1_0"})
_BY_FEATURE = {
    "avx2": frozenset({"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"}),
    "avx512f": frozenset({"Q2_K"}),
    "asimddp": _DOT_PRODUCT,
    "vxe": frozenset({"Q4_0"}),
}
"""By the name that Linux gives an instruction set."""
_ROWS, _AMX_ROWS = 8, 32

PROGRAM_BYTES = 62_000_000
WORD_BYTES = 155
"""Of Python and the engine's libraries; and for each token of the vocabulary."""


@dataclass(frozen=True, slots=True)
class Host:
    """A processor that holds weights, and how they are loaded.

    `features` are its instruction sets as Linux spells them; `repacks` is off where the user or a
    faulty build forbids it, and where a GPU's own host memory holds what is not offloaded.
    """

    features: frozenset[str]
    is_mapped: bool = True
    repacks: bool = True

    def second_copy_bytes(self, facts: ModelFacts) -> int:
        """Of the weights, kept beside those of the file."""
        copied = [
            group for group in facts.weights if self.repacks and self._is_copied(group, facts)
        ]
        if not self.is_mapped:
            copied = [group for group in copied if group.role == "embedding"]
        return sum(group.n_bytes for group in copied)

    def copies(self, kind: str) -> bool:
        """Whether matrices of this type are repacked."""
        return self.repacks and self._has_kernel(kind)

    def program_bytes(self, facts: ModelFacts) -> int:
        """The interpreter, the engine and the vocabulary's tables."""
        return PROGRAM_BYTES + WORD_BYTES * (facts.n_vocab or 0)

    def _is_copied(self, group: WeightGroup, facts: ModelFacts) -> bool:
        if not group.is_streamed or group.role == "norm":
            return False
        n_rows = facts.n_vocab if group.role in ("embedding", "output") else None
        return self._has_kernel(group.type.name, n_rows or 0, is_expert=group.is_expert)

    def _has_kernel(self, kind: str, n_rows: int = 0, *, is_expert: bool = False) -> bool:
        by_amx = self.features >= AMX and kind in _AMX_TYPES and not is_expert
        if by_amx and n_rows % _AMX_ROWS == 0:
            return True
        types = (kinds for name, kinds in _BY_FEATURE.items() if name in self.features)
        return n_rows % _ROWS == 0 and any(kind in kinds for kinds in types)
