"""What a session and a reply are made from, and the way there from a model's name."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from localspec.decode.generation import Verification
from localspec.engine.sampling import Sampling
from localspec.errors import UserError
from localspec.notify import Notify, silent
from localspec.registry.manifest import mark_used
from localspec.registry.resolve import draft_of, resolve
from localspec.session.profile import with_profile
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

    @classmethod
    def named(
        cls,
        model: str | None,
        settings: Settings,
        given: frozenset[str] | None = frozenset(),
        notify: Notify = silent,
        find: Callable[[str | None], Path] = resolve,
    ) -> Self:
        """From names to files, with what `tune` kept for the model but for the settings `given`.

        `given` None: nothing of it. `find`: a model's name to its file, None being the starter.
        Raises UserError or ModelError.
        """
        settings = settings.checked()
        if settings.draft == NONE and settings.spec == "draft":
            raise UserError("--spec draft contradicts --draft none: name a draft model")
        target = find(model)
        draft = draft_file(settings.draft, model, find)
        mark_used(target)
        config = cls(target, settings).with_draft(draft)
        if given is None:
            return config
        return cls(target, with_profile(target, config.settings, given, notify))

    @property
    def draft(self) -> Path | None:
        """The draft model's file."""
        name = self.settings.draft
        return None if name in (NONE, AUTO) else Path(name)

    def with_draft(self, draft: Path | None) -> Self:
        return self.with_settings(draft=NONE if draft is None else str(draft))

    def with_settings(self, **changes: Any) -> Self:
        return replace(self, settings=replace(self.settings, **changes))


def draft_file(
    draft: str, model: str | None, find: Callable[[str | None], Path] = resolve
) -> Path | None:
    """The file of a draft for a model, both by name. Raises UserError or ModelError."""
    if draft == NONE:
        return None
    return draft_of(model) if draft == AUTO else find(draft)


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
