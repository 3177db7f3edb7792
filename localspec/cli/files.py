"""The file of a model that a command names, fetched first if it is a web or hub reference."""

from pathlib import Path


def file_of(reference: str | None) -> Path:
    """As `resolve`; what is spelled out as `hf:...` or an address is pulled if it is not here.

    A name of the catalog is not: it can mean gigabytes that nobody asked for.
    """
    from localspec.registry.resolve import NotHereError, resolve

    try:
        return resolve(reference)
    except NotHereError:
        if reference is None or not reference.startswith(("hf:", "http://", "https://")):
            raise
    from localspec.cli.pull import fetch

    return fetch(reference)[0].path
