"""A draft head drafts: a few layers that read the target's own hidden states.

The head catches up by itself, in the same call as the first drafted token (engine/base.py), so all
that is kept here is how each reply chooses. It can only draft where the target's state behind the
text was kept: after some passes without drafts, and after a memory that could not go back, the next
pass brings it back.
"""

from collections.abc import Sequence
from typing import ClassVar, Self

from localspec.decode.drafters.base import Draft, DraftRequest
from localspec.decode.drafters.unfinished import N_CONFIDENCES, UnfinishedDraft, complete
from localspec.engine.base import Context, Engine, Head, Logits
from localspec.engine.sampling import Chooser
from localspec.model.facts import HEAD_METHODS, N_KEPT, HeadMethod


class HeadDrafter:
    """Drafts with a head of the target's engine, on the target's contexts."""

    source: ClassVar[str]
    option: ClassVar[str]
    label: ClassVar[str]
    is_free: ClassVar[bool] = False
    n_confidences: ClassVar[int] = N_CONFIDENCES
    methods: ClassVar[frozenset[HeadMethod]]

    def __init__(self, head: Head) -> None:
        self._head = head
        self._choosers: dict[int, tuple[list[int], Chooser]] = {}

    @classmethod
    def of(cls, target: Engine, draft: Engine | None, head: Head | None) -> Self | None:
        """None without a head of this kind."""
        return cls(head) if head and head.facts.method in cls.methods else None

    @property
    def n_longest(self) -> int:
        """The longest draft that the head can make."""
        return self._head.n_longest

    @property
    def is_at_once(self) -> bool:
        """Whether one call makes all of a draft."""
        return self._head.facts.block is not None

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        """Draft for all requests, with one call of the head for each further position.

        Raises EngineError or ModelError where the head fails.
        """
        if len(requests) == 1:
            return [self._draft_one(requests[0])]
        drafts = [self._begin(request) for request in requests]
        if len(self._choosers) > len(requests):
            wanted = {id(request.history) for request in requests}
            self._choosers = {key: each for key, each in self._choosers.items() if key in wanted}
        windows = [d.request.window for d in drafts if not d.is_done and d.request.window]
        window = max(windows, default=N_KEPT)

        def rows(
            active: Sequence[UnfinishedDraft[Context | None]],
        ) -> Sequence[tuple[Logits, float | None]]:
            asked = [(d.place, [d.request.history[-1], *d.tokens]) for d in active if d.place]
            return [(row, row.chance) for row in self._head.draft(asked, window)]

        complete(drafts, rows)
        return [draft.draft(self.source) for draft in drafts]

    def _draft_one(self, request: DraftRequest) -> Draft:
        """The same for one request, in few instructions."""
        draft = self._begin(request)
        if draft.is_done or draft.place is None:
            return draft.draft(self.source)
        if len(self._choosers) > 1:
            self._choosers = {id(request.history): self._choosers[id(request.history)]}
        rows = self._head.rows(draft.place, request.history[-1], request.window or N_KEPT)
        row = next(rows)
        while True:
            draft.take(row, row.chance)
            if draft.is_done:
                return draft.draft(self.source)
            row = rows.send(draft.tokens[-1])

    def forget(self) -> None:
        """Forget the replies; what the head has read belongs to the target's contexts."""
        self._choosers.clear()

    def _begin(self, request: DraftRequest) -> UnfinishedDraft[Context | None]:
        context, n_tokens = request.context, min(request.n_tokens, self._head.n_longest)
        if n_tokens and not (context and self._is_behind(context, request.history)):
            n_tokens = 0
        return UnfinishedDraft(request, context, self._chooser(request), n_tokens)

    def _is_behind(self, context: Context, history: Sequence[int]) -> bool:
        """Whether the target has evaluated all but the pending token, and its state was kept."""
        return len(context.tokens) == len(history) - 1 and self._head.is_ready(context)

    def _chooser(self, request: DraftRequest) -> Chooser:
        """The reply's, by its history, which it keeps alive: an id names one list."""
        key = id(request.history)
        if key not in self._choosers:
            self._choosers[key] = request.history, Chooser(request.sampling)
        return self._choosers[key][1]


class MtpDrafter(HeadDrafter):
    """Multi-token prediction: layers behind the target's own, or Gemma 4's assistants."""

    source: ClassVar[str] = "mtp"
    option: ClassVar[str] = "mtp"
    label: ClassVar[str] = "MTP head"
    methods = HEAD_METHODS["mtp"]


class Eagle3Drafter(HeadDrafter):
    """EAGLE-3: one layer that reads the inputs of three of the target's layers."""

    source: ClassVar[str] = "eagle3"
    option: ClassVar[str] = "eagle3"
    label: ClassVar[str] = "EAGLE-3 head"
    methods = HEAD_METHODS["eagle3"]


class DflashDrafter(HeadDrafter):
    """DFlash and DSpark: a small model fills a whole block in one pass."""

    source: ClassVar[str] = "dflash"
    option: ClassVar[str] = "dflash"
    label: ClassVar[str] = "DFlash head"
    methods = HEAD_METHODS["dflash"]
