"""A model's file by any name: from this disk, or pulled where the name is that of one file."""

from collections.abc import Callable
from pathlib import Path

from localspec.notify import silent
from localspec.registry.resolve import NotHereError, is_one_file, resolve

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
    return (fetch or _fetch)(reference)


def _fetch(reference: str) -> Path:
    """Pull silently."""
    from localspec.session.pull_plan import (  # noqa: PLC0415 - only where a model is fetched
        Wish,
        carry_out,
        plan_pull,
    )

    plan = plan_pull(reference, Wish(), silent)
    return carry_out(plan, silent, lambda stage, name, n_bytes, total: None)[0].path
