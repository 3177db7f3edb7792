"""Weights by role and type, and what a pass streams of them.

Decoding reads every matrix once a pass, but of an embedding table only the rows of its tokens, and
of the experts of a layer those that the router chose for any of them. Names of tensors:
src/llama-arch.cpp of llama.cpp.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from localspec.gguf.header import Header, Tensor
from localspec.gguf.types import GgmlType
from localspec.model.kind import is_of_encoder

WeightRole = Literal[
    "embedding", "attention", "feed_forward", "experts", "output", "recurrent", "norm", "other"
]

# The first pattern that is found in a name decides; what matches none is "other".
ROLES: tuple[tuple[str, WeightRole], ...] = (
    (r"^(token_embd|per_layer_token_embd|position_embd|token_types|ple_embd)\.", "embedding"),
    (r"^output\.", "output"),
    (r"norm", "norm"),
    (r"ffn_(up|gate|down|gate_up)(_exps|_chexps|\.\d+)\.", "experts"),
    (r"(ffn|shexp|exp_probs)", "feed_forward"),
    (r"(ssm|time_mix|channel_mix|shortconv|\.rs_)", "recurrent"),
    (r"(attn|indexer)", "attention"),
)
# Tables of which a pass reads a row a token, and what is for images only.
UNUSED = re.compile(
    r"^(per_layer_token_embd|position_embd|token_types)\.|(^|\.)ple_embd\.|tid2eid|^blk\.\d+\.vis_"
)
_BLOCK = re.compile(r"^blk\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class WeightGroup:
    """All weights of one role and type; `is_streamed`: every token needs all of them."""

    role: WeightRole
    type: GgmlType
    n_elements: int
    n_bytes: int
    is_expert: bool
    is_streamed: bool


@dataclass(frozen=True, slots=True)
class Streamed:
    """Weights of one role and type in one pass.

    `n_bytes` are read once for all of its tokens, each of which multiplies `n_elements`.
    """

    role: WeightRole
    type: GgmlType
    n_bytes: float
    n_elements: float


def weights_of(header: Header, n_layers: int) -> tuple[WeightGroup, ...]:
    """Every tensor of the text model in a group; blocks from `n_layers` on (NextN, MTP) are not
    streamed.
    """
    is_tied = header.tensor("output.weight") is None
    sums: dict[tuple[WeightRole, GgmlType, bool, bool], list[int]] = defaultdict(lambda: [0, 0])
    for tensor in header.tensors:
        if is_of_encoder(tensor):
            continue
        role = _role(tensor.name)
        is_streamed = _is_streamed(tensor, is_tied=is_tied, n_layers=n_layers)
        total = sums[role, tensor.type, role == "experts", is_streamed]
        total[0] += tensor.n_elements
        total[1] += tensor.n_bytes
    return tuple(
        WeightGroup(role, kind, n_elements, n_bytes, is_expert, is_streamed)
        for (role, kind, is_expert, is_streamed), (n_elements, n_bytes) in sums.items()
    )


def experts_touched(n_experts: int, n_used: int, n_tokens: int) -> float:
    """How many experts of a layer some token of a pass uses: E (1 - (1 - k / E)^n).

    An expectation for tokens that choose independently and evenly; real ones agree more often.
    """
    return max(0, n_experts) * (1 - (1 - _used_share(n_experts, n_used)) ** n_tokens)


def streamed(
    groups: Iterable[WeightGroup], n_experts: int, n_used: int, n_tokens: int
) -> tuple[Streamed, ...]:
    """What a pass over `n_tokens` reads and multiplies."""
    touched = experts_touched(n_experts, n_used, n_tokens) / n_experts if n_experts > 0 else 1.0
    used = _used_share(n_experts, n_used) if n_experts > 0 else 1.0
    return tuple(
        Streamed(
            group.role,
            group.type,
            group.n_bytes * (touched if group.is_expert else 1.0),
            group.n_elements * (used if group.is_expert else 1.0),
        )
        for group in groups
        if group.is_streamed
    )


def _used_share(n_experts: int, n_used: int) -> float:
    """Between 0 and 1, whatever an unchecked header says."""
    return min(max(0, n_used), n_experts) / n_experts if n_experts > 0 else 0.0


def _role(name: str) -> WeightRole:
    for pattern, role in ROLES:
        if re.search(pattern, name):
            return role
    return "other"


def _is_streamed(tensor: Tensor, *, is_tied: bool, n_layers: int) -> bool:
    if tensor.name.startswith("token_embd."):
        return is_tied
    block = _BLOCK.match(tensor.name)
    return not UNUSED.search(tensor.name) and not (block and int(block[1]) >= n_layers)


def expert_layers(tensors: Iterable[Tensor], n_layers: int) -> tuple[int, ...]:
    sums = [0] * n_layers
    for tensor in tensors:
        block = _BLOCK.match(tensor.name)
        if block and int(block[1]) < n_layers and _role(tensor.name) == "experts":
            sums[int(block[1])] += tensor.n_bytes
    return tuple(sums) if any(sums) else ()
