"""A model's file and how it is run, from what a user calls the model.

The command line and the Python API both ask here, so that a model, its draft and its tuned profile
are found alike. What loads a model imports no more than this, so that loading begins early.

A model is on this disk under any of its names, or it is pulled where the name is that of one file.
Settings are chosen for how a session will be used, as far as its options tell.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from localspec.errors import UserError
from localspec.model.facts import HEAD_METHODS
from localspec.notify import Notify, silent
from localspec.registry.manifest import mark_used
from localspec.registry.resolve import NotHereError, is_one_file, resolve
from localspec.session.drafting import chosen_draft
from localspec.session.profile import with_profile
from localspec.settings import AUTO, NONE, OWN, Settings, Speculation
from localspec.store import Kept

CHARACTERS, USUAL_ANSWER, USUAL_DEPTH = 4.0, 512, 1024
"""Of a token; tokens of an answer whose length nobody limits, and before the middle of one."""
UNSURE_TOKENS, LASTING_TOKENS = 500, 20_000
"""Of answers before their depth counts as much as the usual one, and of those that are kept."""


@dataclass(frozen=True, slots=True)
class Expected:
    """How a session will be used: `n_texts` texts that end `depth` tokens deep in the context."""

    depth: int = USUAL_DEPTH
    n_texts: int = 8

    @classmethod
    def of_text(cls, n_characters: int, n_answer: int | None, n_texts: int = 1) -> Self:
        """Texts of some characters and the middle of their answers; None: as long as usual."""
        answer = USUAL_ANSWER if n_answer is None else n_answer
        return cls(int(n_characters / CHARACTERS) + answer // 2, n_texts)


@dataclass(frozen=True, slots=True)
class Depths:
    """Tokens that were answered, and the sum of how deep in its text each stood."""

    n_tokens: float = 0.0
    summed: float = 0.0

    @classmethod
    def kept(cls, model: Path) -> "Kept[Depths]":
        """Those of a model's answers by servers before."""
        return Kept.of(cls, "depths", str(model.resolve()))

    def __add__(self, other: "Depths") -> "Depths":
        """Of both; the older ones fade, so that another use shows within thousands of tokens."""
        n_tokens, summed = self.n_tokens + other.n_tokens, self.summed + other.summed
        share = min(1.0, LASTING_TOKENS / n_tokens) if n_tokens else 1.0
        return Depths(share * n_tokens, share * summed)

    def expected(self, n_texts: int) -> Expected:
        """The use to be expected: few answers say little."""
        usual = USUAL_DEPTH * UNSURE_TOKENS + self.summed
        return Expected(round(usual / (UNSURE_TOKENS + self.n_tokens)), n_texts)


Fetch = Callable[[str], Path]
"""Downloads a reference and returns the file."""


def find_or_fetch(reference: str | None, fetch: Fetch | None = None) -> Path:
    """As `resolve`, but one file of the hub or of another server is pulled if it is not here.

    A name or a repository is not pulled: it can mean gigabytes that the user did not expect.
    """
    try:
        return resolve(reference)
    except NotHereError:
        if reference is None or not is_one_file(reference):
            raise
    if fetch:
        return fetch(reference)
    from localspec.session.pull_plan import (  # noqa: PLC0415 - only where a model is fetched
        Wish,
        carry_out,
        plan_pull,
    )

    plan = plan_pull(reference, Wish(), silent)
    return carry_out(plan, silent, lambda stage, name, n_bytes, total: None)[0].path


NO_AUTO = "LOCALSPEC_NO_AUTO"
"""A variable that counts as --no-auto wherever it is set."""


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """A model's file and how it is run; an unresolved draft, "auto", counts as none. The draft is a
    model, a head in a file, or `own`, the head in the model's own file.

    `open`: settings that nobody chose and that become what is fastest here, as `expected` it is
    used. `keeps_prompts`: what takes long to read is kept on disk for the next question on it.
    """

    model: Path
    settings: Settings = field(default_factory=Settings)
    open: frozenset[str] = frozenset()
    expected: Expected = field(default_factory=Expected)
    keeps_prompts: bool = False

    @classmethod
    def of(cls, model: Path, draft: Path | str | None = None, **settings: Any) -> Self:
        """With settings by name. Raises UserError for an unknown one."""
        return cls(model, Settings.of(**settings)).with_draft(draft)

    @property
    def draft(self) -> Path | None:
        """The file of the draft model or head."""
        name = self.settings.draft
        return None if name in (NONE, AUTO, OWN) else Path(name)

    def with_draft(self, draft: Path | str | None) -> Self:
        return self.with_settings(draft=NONE if draft is None else str(draft))

    def with_settings(self, **changes: Any) -> Self:
        return replace(self, settings=replace(self.settings, **changes))


def session_config(
    name: str | None,
    settings: Settings,
    given: frozenset[str] | None = None,
    notify: Notify = silent,
    fetch: Fetch | None = None,
    *,
    is_auto: bool = True,
) -> SessionConfig:
    """A model and its draft by name; the tuned profile fills settings other than those `given`.

    `given` None: no profile is used. `is_auto`: what nobody chose, flag or profile, becomes what is
    fastest here. Raises UserError or ModelError.
    """
    settings = settings.checked()
    if settings.draft == NONE and settings.spec in ("draft", *HEAD_METHODS):
        raise UserError(f"--spec {settings.spec} contradicts --draft none: name a draft")
    target = find_or_fetch(name, fetch)
    draft = draft_for(target, name, settings.draft, settings.spec, fetch)
    mark_used(target)
    config = SessionConfig(target, settings).with_draft(draft)
    if given is not None:
        tuned = with_profile(target, config.settings, given, notify)
        if tuned != config.settings:  # they were found together
            return replace(config, settings=tuned)
    if not is_auto or os.environ.get(NO_AUTO):
        return config
    return replace(config, open=settings.left_open(given or frozenset()))


def draft_for(
    target: Path,
    name: str | None,
    draft: str = AUTO,
    spec: Speculation = "auto",
    fetch: Fetch | None = None,
) -> str:
    """Who drafts for a target, as a session's settings have it: a file, `own` or `none`.

    `name`: what the user calls the target. Raises UserError or ModelError.
    """
    asked = Settings(draft=draft, spec=spec)
    return chosen_draft(asked, target, name, lambda each: find_or_fetch(each, fetch))
