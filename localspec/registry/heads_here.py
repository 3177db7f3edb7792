"""The draft head of a model that is on this machine: in its file, beside it, or the catalog's.

Names propose and headers decide.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from localspec.errors import LocalspecError
from localspec.gguf.header import Header
from localspec.gguf.hub_name import HUB, HubFile, hub_name_of
from localspec.gguf.reader import read_header
from localspec.model.facts import HEAD_METHODS, HeadFacts
from localspec.registry.resolve import catalog_entry
from localspec.registry.variants import model_of
from localspec.settings import AUTO, OWN


def found_head(target: Path, name: str | None, spec: str = AUTO) -> str | None:
    """The head that fits a target, in it (`own`) or in a file that is here; None without one."""
    with suppress(LocalspecError, OSError):  # a broken target is refused when it is loaded
        header = read_header(target)
        if header.n_draft_layers and is_wanted(_fitting(header), spec):
            return OWN
        for path in _proposed(target, name):
            with suppress(LocalspecError, OSError):
                if is_wanted(_fitting(header, read_header(path)), spec):
                    return str(path)
    return None


def _fitting(target: Header, head: Header | None = None) -> HeadFacts | str:
    from localspec.model.head_fit import head_of  # noqa: PLC0415 - few files have one

    return head_of(target, head)


def is_wanted(found: HeadFacts | str, spec: str) -> bool:
    """Whether what `head_fit.head_of` found is a head that `--spec` asks for."""
    wanted = HEAD_METHODS.get(spec)
    return not isinstance(found, str) and (wanted is None or found.method in wanted)


def _proposed(target: Path, name: str | None) -> Iterator[Path]:
    """Files that may be the target's head: of the same model by name, beside it; the catalog's."""
    folder, own = target.parent, _plain(target.name)
    for path in sorted([*folder.glob("*.gguf"), *folder.glob("*/*.gguf")]):
        is_marked = any(mark in str(path.relative_to(folder)).lower() for mark in _MARKS)
        if is_marked and path != target and _plain(path.name) == own:
            yield path
    entry = catalog_entry(name)
    if entry and entry.head not in (None, "own"):
        from localspec.registry.remote_file import cached  # noqa: PLC0415 - few have one

        hub = hub_name_of(f"{HUB}{entry.head}")
        file = cached(hub) if isinstance(hub, HubFile) else None
        if file:
            yield file


def _plain(file: str) -> str:
    """The model that a file's name tells, without what marks a head."""
    name = model_of(file).lower()
    for mark in _MARKS:
        name = name.removeprefix(f"{mark}-").removesuffix(f"-{mark}")
    return name


_MARKS = ("mtp", "eagle3", "dflash", "dspark", "assistant")
