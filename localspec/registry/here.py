"""Files of a hub's repository that are on this machine, whichever program brought them.

localspec's own pulls and the hub's cache have a file's name; LM Studio keeps it below owner and
repository; Ollama keeps a blob by owner, repository and tag.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from localspec.errors import UserError
from localspec.gguf.hub_name import HUB, HubFile, HubName, HubRepository, hub_name_of, with_file
from localspec.registry.manifest import pulled_files
from localspec.registry.other_apps import found_models
from localspec.registry.variants import RepositoryFile, Variant, few, in_folder, variants, with_tag

_LM_STUDIO, _OLLAMA = "lmstudio:", "ollama:"
_PLACES = (
    re.compile(r".*models--([\w.-]+?)--([\w.-]+)/snapshots/\w+/(.+\.gguf)"),
    re.compile(r".*/(?:\.?lm-?studio)/models/([\w.-]+)/([\w.-]+)/(.+\.gguf)", re.IGNORECASE),
)
"""Of the hub's cache and of LM Studio, on any machine."""


def file_here(wanted: HubRepository) -> Path | None:
    """The one model that a name means here, or None. UserError if several are here."""
    files = _files(wanted)
    listing = [RepositoryFile(name, path.stat().st_size) for name, path in files.items()]
    found = variants(listing) or [Variant("", file.file, file.n_bytes) for file in listing]
    if wanted.folder:
        found = in_folder(found, wanted.folder)
    if wanted.tag:
        found = with_tag(found, wanted.tag)
    if len(found) > 1:
        names = few([with_file(wanted, variant.file).name for variant in found])
        raise UserError(f"several models of {wanted.name} are here: name one of {names}")
    return files[found[0].file] if found else _in_ollama(wanted)


def same_file_here(wanted: HubFile) -> Path | None:
    """One file by its name in the repository, where the hub's cache has no branch that leads to it:
    of a commit that was asked for, or of another program.
    """
    whole = HubRepository(wanted.repository, revision=wanted.revision)
    return _files(whole).get(wanted.file)


def name_by_place(path: str) -> str | None:
    """What the hub calls a file by its place in a folder of models that need not be here."""
    plain = path.replace("\\", "/")
    found = next(filter(None, (place.fullmatch(plain) for place in _PLACES)), None)
    return found and HubFile(f"{found[1]}/{found[2]}", found[3]).name


def _files(wanted: HubRepository) -> dict[str, Path]:
    """By their names in the repository; a model's first part only."""
    files: dict[str, Path] = {}
    for name, path in _named():
        if not isinstance(name, HubFile) or not _is_same(name.repository, wanted.repository):
            continue
        if wanted.revision in (None, name.revision):
            files.setdefault(name.file, path)
    return files


def _named() -> Iterator[tuple[HubName | None, Path]]:
    for file in reversed(pulled_files()):
        if file.is_whole and file.reference.startswith(HUB) and Path(file.path).exists():
            yield hub_name_of(file.reference), Path(file.path)
    for model in found_models():
        if model.name.startswith((HUB, _LM_STUDIO)):
            yield _hub_name(HUB + model.name.partition(":")[2]), model.path


def _hub_name(name: str) -> HubName | None:
    """What another program's name is on the hub, if it has that form."""
    try:
        return hub_name_of(name)
    except UserError:
        return None


def _in_ollama(wanted: HubRepository) -> Path | None:
    for model in found_models():
        if not model.name.startswith(_OLLAMA):
            continue
        name = _hub_name(model.name.removeprefix(_OLLAMA))
        if not isinstance(name, HubRepository) or not _is_same(name.repository, wanted.repository):
            continue
        if not wanted.tag or _is_same(name.tag or "", wanted.tag):
            return model.path
    return None


def _is_same(one: str, other: str) -> bool:
    return one.casefold() == other.casefold()
