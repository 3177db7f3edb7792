"""What a session and a reply are made from."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from localspec.decode.generation import Verification
from localspec.engine.sampling import Sampling
from localspec.settings import NONE, Settings, Speculation

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """A model's file and how it is run; a draft that is still "auto" is none."""

    model: Path
    settings: Settings = field(default_factory=Settings)

    @classmethod
    def of(cls, model: Path, draft: Path | None = None, **settings: Any) -> Self:
        """With settings by name. Raises UserError for one that there is none of."""
        return cls(model, Settings.of(**settings)).with_draft(draft)

    @property
    def draft(self) -> Path | None:
        """The draft model's file."""
        name = self.settings.draft
        return None if name in (NONE, AUTO) else Path(name)

    def with_draft(self, draft: Path | None) -> Self:
        return self.with_settings(draft=NONE if draft is None else str(draft))

    def with_settings(self, **changes: Any) -> Self:
        return replace(self, settings=replace(self.settings, **changes))


@dataclass(frozen=True, slots=True)
class ReplyOptions:
    """How one reply is made. `max_tokens` None: until the model ends it or the context is full.

    `spec` and `draft_max` are the session's unless given; what the session has not loaded drafts
    nothing, and no draft is longer than the session's longest.
    """

    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    verify: Verification = "match"
    ignore_eos: bool = False
    spec: Speculation | None = None
    draft_max: int | None = None
