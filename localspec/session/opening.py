"""From what a user names to what a session needs: one way there, by every door.

The command line and the Python API both ask here, so that a model, its draft and its tuned profile
are found alike.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from localspec.errors import UserError
from localspec.notify import Notify, silent
from localspec.registry.manifest import mark_used
from localspec.registry.resolve import ADDRESSES, NotHereError, draft_of, resolve
from localspec.session.config import AUTO, SessionConfig
from localspec.session.profile import with_profile
from localspec.settings import NONE, Settings

Fetch = Callable[[str], Path]
"""Gets what a reference spells out, and says where it is."""


def find_or_fetch(reference: str | None, fetch: Fetch | None = None) -> Path:
    """As `resolve`; what is spelled out as `hf:...` or an address is pulled if it is not here.

    A name of the catalog is not: it can mean gigabytes that nobody asked for.
    """
    try:
        return resolve(reference)
    except NotHereError:
        if reference is None or not reference.startswith(("hf:", *ADDRESSES)):
            raise
    return (fetch or _fetch)(reference)


def _fetch(reference: str) -> Path:
    """Pull without a word."""
    from localspec.session.pull_plan import (  # noqa: PLC0415 - only where a model is fetched
        Wish,
        carry_out,
        plan_pull,
    )

    plan = plan_pull(reference, Wish(), silent)
    return carry_out(plan, silent, lambda stage, name, n_bytes, total: None)[0].path


def session_config(
    name: str | None,
    settings: Settings,
    given: frozenset[str] | None = None,
    notify: Notify = silent,
    fetch: Fetch | None = None,
) -> SessionConfig:
    """A model and its draft by name, with what `tune` kept but for the settings `given`.

    `given` None: nothing of it. Raises UserError or ModelError.
    """
    settings = settings.checked()
    if settings.draft == NONE and settings.spec == "draft":
        raise UserError("--spec draft contradicts --draft none: name a draft model")
    target = find_or_fetch(name, fetch)
    draft = draft_file(settings.draft, name, fetch)
    mark_used(target)
    config = SessionConfig(target, settings).with_draft(draft)
    if given is None:
        return config
    return replace(config, settings=with_profile(target, config.settings, given, notify))


def draft_file(draft: str, model: str | None, fetch: Fetch | None = None) -> Path | None:
    """The file of a draft for a model, both by name. Raises UserError or ModelError."""
    if draft == NONE:
        return None
    return draft_of(model) if draft == AUTO else find_or_fetch(draft, fetch)
