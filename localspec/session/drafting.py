"""Who drafts for a target, by headers alone: a draft model, a draft head or nobody; and how long.

`auto` takes a head where there is one, in the target's file, beside it, or the catalog's; else the
draft model that the catalog pairs with the target. Names propose and headers decide. One drafter
that costs time is loaded; look-ups need none.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from localspec.engine.base import EngineConfig
from localspec.errors import UserError
from localspec.gguf.header import Header
from localspec.gguf.reader import read_header
from localspec.model.facts import HEAD_METHODS, HeadFacts, ModelFacts
from localspec.registry.heads_here import found_head, is_wanted
from localspec.registry.resolve import draft_of
from localspec.session.placing import Need, is_elsewhere
from localspec.settings import AUTO, MAX_DRAFT, NONE, OWN, Settings

if TYPE_CHECKING:
    from localspec.forecast.head_forecast import AskedHead

DEFAULT_DRAFT = 3
AUTO_DRAFT = 16
"""The longest draft that is chosen without a cap."""
SNAPSHOTS, FEW_SNAPSHOTS, SNAPSHOTS_BYTES = 8, 4, 512_000_000
"""States to roll back to that are kept unasked: at most, where their size is unknown, and together.
Each costs every pass some copies; longer drafts seldom stand."""


def chosen_draft(
    settings: Settings, target: Path, name: str | None, file_of: Callable[[str], Path]
) -> str:
    """Who drafts, as `Settings.draft` has it: a file, the target's own head, or nobody.

    `name`: what the user calls the target; `file_of` finds a model by name. Raises UserError or
    ModelError for a draft that was named.
    """
    if settings.draft in (NONE, OWN):
        return settings.draft
    if settings.draft != AUTO:
        return str(file_of(settings.draft))
    head = None if settings.spec == "draft" else found_head(target, name, settings.spec)
    pair = None if head or settings.spec in HEAD_METHODS else draft_of(name)
    return head or (str(pair) if pair else NONE)


@dataclass(frozen=True, slots=True)
class HeadPlan:
    """A head that will be loaded."""

    head: "AskedHead"

    @property
    def facts(self) -> HeadFacts:
        return self.head.facts

    @property
    def draft(self) -> str:
        """As `Settings.draft` has it."""
        return OWN if self.head.is_inside else str(self.facts.path)

    @property
    def name(self) -> str:
        """For people."""
        return self.facts.path.name if self.facts.path else "the model's own head"

    def need(self, target: EngineConfig, facts: ModelFacts) -> Need:
        """The memory that it takes of this machine's, beside a target and its facts."""
        if is_elsewhere(target):
            return Need()
        n_users = target.settings.n_sequences
        own_bytes = self.head.context_bytes(facts, target.n_ctx, n_users)
        if target.settings.mmap:
            return Need(own_bytes, mapped_bytes=self.head.beside_bytes)
        return Need(own_bytes + self.head.beside_bytes)


def planned_head(settings: Settings, target: Header, draft: Path | None) -> HeadPlan | None:
    """The head that settings ask for; None: none, or `draft` is a draft model.

    Raises ModelError with the reason where a head does not fit, UserError where options contradict
    each other.
    """
    spec, is_own = settings.spec, settings.draft == OWN
    head = read_header(draft) if draft else None
    if spec == "draft" and not (draft or is_own):
        raise UserError("--spec draft needs a draft model: name one with --draft")
    is_asked = is_own or spec in HEAD_METHODS or (head is not None and _is_head(head))
    if not is_asked or spec in (NONE, "lookup"):
        return None
    name = draft.name if draft else "the model's own head"
    if spec == "draft":
        raise UserError(f"--spec draft needs a draft model, and {name} is a draft head")
    if not (draft or is_own) and spec != "mtp":
        raise UserError(f"--spec {spec} needs a draft head: name its file with --draft")
    from localspec.forecast.head_forecast import AskedHead  # noqa: PLC0415 - few files have one

    found = AskedHead.of(target, head)
    facts = found.facts
    if not is_wanted(facts, spec):
        fitting = next(each for each, methods in HEAD_METHODS.items() if facts.method in methods)
        raise UserError(f"--spec {spec} does not fit {name}: it is a head for --spec {fitting}")
    return HeadPlan(found)


def _is_head(header: Header) -> bool:
    from localspec.model.head_fit import is_head  # noqa: PLC0415 - few files have one

    return is_head(header)


def most_drafted(settings: Settings, n_ctx: int) -> int:
    """The longest draft. Drafts of several sequences take half a micro-batch, so that prompts have
    the other half."""
    if settings.spec == NONE:
        return 0
    asked = settings.draft_max or (AUTO_DRAFT if settings.spec == AUTO else DEFAULT_DRAFT)
    if settings.n_sequences == 1:
        return min(asked, MAX_DRAFT)
    shared = min(settings.ubatch, n_ctx) // (2 * settings.n_sequences) - 1
    return max(0, min(asked, shared))


def n_snapshots(settings: Settings, facts: ModelFacts, max_draft: int) -> int:
    """States to keep for drafts of that length; the engine needs none where there is no state."""
    if settings.n_rs_seq or not max_draft:
        return settings.n_rs_seq
    most = min(max_draft, settings.ubatch // settings.n_sequences - 1)
    if settings.draft_max or facts.state_bytes == 0:
        return most
    if facts.state_bytes is None:
        return min(most, FEW_SNAPSHOTS)
    fitting = SNAPSHOTS_BYTES // (facts.state_bytes * settings.n_sequences)
    return min(most, SNAPSHOTS, fitting)
