"""What a draft head would cost and bring, before it is fetched or switched on: from its header.

A step of a head is a pass over a small model, at the machine's rates. It reads its layers, of
several heads' one, and a matrix for scores, its own or the target's; of an embedding table it reads
a row. EAGLE-3's encoder, which runs once a round, counts with each step here. Names of tensors:
src/models/*.cpp of llama.cpp.

What a head takes of the memory grows with the users, and so does what a check costs: many users
fill a pass that one user leaves half empty. States of a hybrid target are kept for each token of a
draft.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import takewhile

from localspec.errors import ModelError
from localspec.gguf.header import Header, Tensor
from localspec.model.facts import HeadFacts, HeadMethod, ModelFacts
from localspec.model.head_fit import head_of, is_head, layers_of_assistant
from localspec.model.head_pair import n_layers_of
from localspec.model.layers import MAX_LAYERS, Layer, layers_of
from localspec.model.tokenizer import Tokenizer
from localspec.prediction.memory import Host, head_bytes, memory_of
from localspec.prediction.roofline import Roofline
from localspec.prediction.speculation import (
    HEAD_DRAFT,
    HEAD_SHARE,
    MAX_DRAFT,
    BestDraft,
    Drafting,
    acceptance_of,
    speculation_at,
)
from localspec.settings import OWN

_BLOCK = re.compile(r"^blk\.(\d+)\.(.*)")
_SCORES, _TABLE = "output.weight", "token_embd.weight"
_OWN_SCORES = "nextn.shared_head_head.weight"
_NOT_STREAMED = (
    "token_embd.", "nextn.embed_tokens.", "nextn.shared_head_head.", "selector_predecessor",
    "markov_w1", "d2t",
)  # fmt: skip
"""Tables of which a step reads a row a token, and what stands for the scores' matrix."""


def head_model(target: Header, head: Header | None, facts: HeadFacts) -> ModelFacts:
    """A head that `head_fit.head_of` judged. `weight_bytes` are those that it brings: of a head
    inside, what the target's file has beside the model proper."""
    file = head or target
    tensors = tuple(_step_tensors(target, file, facts))
    name = file.architecture
    metadata = {
        "general.architecture": name,
        "general.name": file.metadata.get("general.name", ""),
        f"{name}.block_count": MAX_LAYERS,
        f"{name}.embedding_length": file.metadata[f"{name}.embedding_length"],
        f"{name}.expert_count": file.integer(f"{name}.expert_count") or 0,
        f"{name}.expert_used_count": _experts_used(file),
    }
    header = Header(file.parts, file.version, file.alignment_bytes, metadata, tensors)
    model = ModelFacts.of(header, Tokenizer.of(target), head_layers(target, file, facts))
    own = file.tensors
    if head is None:  # those of the heads inside a model's file
        blocks = [(tensor, _BLOCK.match(tensor.name)) for tensor in own]
        first = n_layers_of(file)
        own = tuple(tensor for tensor, block in blocks if block and int(block[1]) >= first)
    return replace(
        model,
        state_bytes=0,
        n_params=sum(tensor.n_elements for tensor in own),
        weight_bytes=sum(tensor.n_bytes for tensor in own),
    )


def head_layers(target: Header, file: Header, facts: HeadFacts) -> tuple[Layer, ...]:
    """The layers of a step; that of an MTP head is like the target's last that sees all of the
    text."""
    if facts.needs_target_cache:
        return layers_of_assistant(file)
    if facts.method != "mtp":
        return layers_of(file)
    whole = [layer for layer in layers_of(target) if layer.has_cache and not layer.window_tokens]
    return tuple(whole[-1:] or layers_of(target)[-1:])


def _step_tensors(target: Header, file: Header, facts: HeadFacts) -> Iterator[Tensor]:
    """What a step reads, with the scores' matrix as `output`."""
    is_mtp, first = facts.method == "mtp", n_layers_of(file)
    for tensor in file.tensors:
        block = _BLOCK.match(tensor.name)
        is_other = is_mtp and not (block and int(block[1]) == first)
        is_table = tensor.name == _SCORES or any(part in tensor.name for part in _NOT_STREAMED)
        if not is_other and not is_table:
            yield tensor
    yield replace(_scores(target, file), name=_SCORES)


def _scores(target: Header, file: Header) -> Tensor:
    """The matrix for scores: the head's own, else its table, else the target's."""
    own = (tensor for tensor in file.tensors if tensor.name.endswith(_OWN_SCORES))
    table = None if file.architecture == "eagle3" else file.tensor(_TABLE)
    found = [next(own, None), file.tensor(_SCORES), table]
    found += [target.tensor(_SCORES), target.tensor(_TABLE)]
    return next(filter(None, found))


def _experts_used(file: Header) -> int:
    key = file.own_key("expert_used_count")
    value = file.metadata.get(key)
    return value if isinstance(value, int) else max(file.integers(key) or (0,)) if value else 0


USERS = (1, 2, 4, 8, 16, 32)
MOST_SNAPSHOTS = 8


@dataclass(frozen=True, slots=True)
class AskedHead:
    """A head that fits its target; `layers` have a cache of their own."""

    facts: HeadFacts
    model: ModelFacts
    layers: tuple[Layer, ...] = field(repr=False)

    @classmethod
    def of(cls, target: Header, head: Header | None) -> "AskedHead":
        """ModelError with the reason where it does not fit."""
        facts = head_of(target, head)
        if isinstance(facts, str):
            raise ModelError(facts)
        layers = head_layers(target, head or target, facts) * facts.n_heads
        own = () if facts.needs_target_cache else layers
        return cls(facts, head_model(target, head, facts), own)

    @property
    def is_inside(self) -> bool:
        return self.facts.path is None

    @property
    def beside_bytes(self) -> int:
        """Weights beside those of the target's file."""
        return 0 if self.is_inside else self.model.weight_bytes

    def context_bytes(self, target: ModelFacts, n_ctx: int, n_users: int) -> int:
        """Cache and buffers."""
        return head_bytes(self.facts.method, self.layers, target, n_ctx, n_users)

    def drafting(self, roofline: Roofline) -> Drafting:
        """Who drafts, with the times of a step here."""
        longest = min(MAX_DRAFT, self.facts.n_draft_max or MAX_DRAFT)
        n_block = self.facts.block.n_tokens if self.facts.block else None
        return Drafting(roofline, longest, n_block, is_head=True)


def asked_head(
    name: str | None, target: Callable[[], Header], header_of: Callable[[str], Header]
) -> AskedHead | None:
    """The head that `--draft` names; None: a draft model, or nothing.

    `own` is the head in the target's file, `auto` too if there is one. Raises ModelError.
    """
    if name in (None, "none"):
        return None
    if name in (OWN, "mtp"):
        return AskedHead.of(target(), None)
    if name == "auto":
        header = target()
        return None if isinstance(head_of(header), str) else AskedHead.of(header, None)
    try:
        head = header_of(name)
    except ModelError:
        return None  # whoever asks for its facts says why, or knows its published configuration
    return AskedHead.of(target(), head) if is_head(head) else None


@dataclass(frozen=True, slots=True)
class HeadUsers:
    """For so many users at once: the acceptance from which the head pays, None: it never does; and
    its best use at the acceptance that is typical."""

    n_users: int
    break_even: float | None
    best: BestDraft


@dataclass(frozen=True, slots=True)
class HeadForecast:
    """Bytes are of one user; `token_bytes`: of its cache for a token of the context; `n_snapshots`
    states of the target, of `snapshot_bytes` each, are kept to take back a draft."""

    method: HeadMethod
    file: str
    is_inside: bool
    n_draft_max: int | None
    weight_bytes: int
    step_bytes: float
    token_bytes: int
    context_bytes: int
    n_snapshots: int
    snapshot_bytes: int | None
    users: tuple[HeadUsers, ...]

    @property
    def memory_bytes(self) -> int:
        """All that it takes for one user."""
        beside = 0 if self.is_inside else self.weight_bytes
        return beside + self.context_bytes + self.n_snapshots * (self.snapshot_bytes or 0)

    @property
    def pays_for_users(self) -> int:
        """The most users for whom it pays at the typical acceptance, as it does for fewer."""
        paying = takewhile(lambda each: each.best.n_draft > 0, self.users)
        return max((each.n_users for each in paying), default=0)


TYPICAL = acceptance_of(HEAD_SHARE, HEAD_DRAFT)
"""The chance of a drafted token that published runs suggest."""


def draft_bytes(
    draft: ModelFacts | AskedHead | None,
    target: Roofline,
    n_users: int,
    n_ctx: int,
    host: Host | None,
) -> int:
    """What it takes beside its target; a head's states of a draft of usual length, too."""
    if isinstance(draft, AskedHead):
        states = HEAD_DRAFT * n_users * (target.facts.state_bytes or 0)
        return draft.beside_bytes + draft.context_bytes(target.facts, n_ctx, n_users) + states
    return memory_of(draft, target.cache, n_ctx, host).beside_bytes if draft else 0


def forecast_head(
    head: AskedHead, target: Roofline, drafter: Drafting, n_ctx: int, depth: int
) -> HeadForecast:
    """What is known of a head before it is loaded."""
    facts = target.facts
    by_users = {n: speculation_at(target, drafter, depth, n) for n in USERS}
    users = tuple(
        HeadUsers(n, costs.break_even_acceptance(), costs.best(TYPICAL))
        for n, costs in by_users.items()
    )
    n_snapshots = min(MOST_SNAPSHOTS, users[0].best.n_draft or HEAD_DRAFT)
    return HeadForecast(
        method=head.facts.method,
        file=head.model.path,
        is_inside=head.is_inside,
        n_draft_max=head.facts.n_draft_max,
        weight_bytes=head.model.weight_bytes,
        step_bytes=head.model.streamed_bytes,
        token_bytes=2 * sum(layer.n_keys + layer.n_values for layer in head.layers),
        context_bytes=head.context_bytes(facts, n_ctx, 1),
        n_snapshots=0 if facts.state_bytes == 0 else n_snapshots,
        snapshot_bytes=facts.state_bytes,
        users=users,
    )
