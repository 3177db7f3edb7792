"""What a draft head would cost and bring, before it is fetched or switched on: from its header.

A step of a head is a pass over a small model (`model.head_model`), at the machine's rates. What it
takes of the memory grows with the users, and so does what a check costs: many users fill a pass
that one user leaves half empty. States of a hybrid target are kept for each token of a draft.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import takewhile

from localspec.errors import ModelError
from localspec.gguf.header import Header
from localspec.model.facts import ModelFacts
from localspec.model.head_fit import head_of, is_head
from localspec.model.head_model import head_layers, head_model
from localspec.model.heads import HeadFacts, HeadMethod
from localspec.model.layers import Layer
from localspec.prediction.host_memory import Host
from localspec.prediction.memory import head_bytes, memory_of
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
    users = tuple(_users(target, drafter, depth, n) for n in USERS)
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


def _users(target: Roofline, drafter: Drafting, depth: int, n: int) -> HeadUsers:
    costs = speculation_at(target, drafter, depth, n)
    return HeadUsers(n, costs.break_even_acceptance(), costs.best(TYPICAL))
