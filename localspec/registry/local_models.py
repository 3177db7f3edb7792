"""Models on this disk, whichever program brought them: used where they lie, never changed.

    hf:owner/repo/file.gguf      the Hugging Face cache, which llama.cpp uses since 2026, too
    ollama:llama3.2:3b           Ollama: manifests name blobs by digest (OLLAMA_MODELS)
    lmstudio:owner/repo/file     LM Studio: its folder of models, wherever its home is
    llama.cpp:file               llama.cpp's own cache folder (LLAMA_CACHE)

A file of a hub's repository is found in all of them, and among localspec's own pulls: those and the
hub's cache have its name; LM Studio keeps it below owner and repository; Ollama keeps a blob by
owner, repository and tag.

Sources: docs/import.md and server/modelpath.go of Ollama, `findLMStudioHome` of lmstudio.js,
`fs_get_cache_directory` in common/common.cpp of llama.cpp. LM Studio's settings can name another
folder; that one is read as well.
"""

import json
import os
import platform
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localspec.errors import LocalspecError, UserError
from localspec.gguf.hub_name import HUB, HubFile, HubName, HubRepository, hub_name_of, with_file
from localspec.gguf.reader import PART_NAME, parts_of
from localspec.registry.catalog import load_catalog
from localspec.registry.manifest import pulled, pulled_files
from localspec.registry.remote_file import cache_folder
from localspec.registry.sites import ORIGINS
from localspec.registry.variants import RepositoryFile, Variant, few, in_folder, variants, with_tag

_MAGIC = b"GGUF"
_OLLAMA_MODEL = "application/vnd.ollama.image.model"
_OLLAMA_SERVICE = Path("/usr/share/ollama/.ollama/models")


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model of another program; `path` is the first part, `n_bytes` those of all parts."""

    name: str
    path: Path
    origin: str
    n_bytes: int

    @property
    def short_names(self) -> tuple[str, ...]:
        """Further names: the name without its origin, the file, its stem."""
        plain = self.name.partition(":")[2]
        file = plain.rpartition("/")[2].partition("@")[0]
        return plain, file, file.removesuffix(".gguf"), plain.removesuffix(":latest")


def found_models() -> list[FoundModel]:
    """All of them; a folder that is not there or may not be read has none."""
    lm_studio = _below("lmstudio", "LM Studio", dict.fromkeys(_lm_studio_folders()))
    return [*_hub_cache(), *_ollama(), *lm_studio, *_below("llama.cpp", "llama.cpp", [_cache()])]


def found_named(name: str, models: Iterable[FoundModel]) -> list[FoundModel]:
    """Those of that name, whatever its case: the whole one if there is one, else short ones."""
    wanted, models = name.casefold(), list(models)
    exact = [model for model in models if model.name.casefold() == wanted]
    return exact or [
        model for model in models if wanted in {short.casefold() for short in model.short_names}
    ]


def _hub_cache() -> Iterator[FoundModel]:
    for repository in sorted(_listing(cache_folder(), "models--*")):
        name = repository.name.removeprefix("models--").replace("--", "/", 1)
        main = _text(repository / "refs" / "main")
        for snapshot in sorted(_listing(repository / "snapshots", "*")):
            revision = "" if snapshot.name == main else f"@{snapshot.name}"
            for path in _models_in(snapshot):
                file = path.relative_to(snapshot).as_posix()
                yield _found(f"{HUB}{name}/{file}{revision}", path, "Hugging Face cache")


def _ollama() -> Iterator[FoundModel]:
    given = os.environ.get("OLLAMA_MODELS")
    for folder in [Path(given)] if given else [Path.home() / ".ollama/models", _OLLAMA_SERVICE]:
        manifests = folder / "manifests"
        for manifest in sorted(_tree(manifests)):
            blob = folder / "blobs" / _ollama_blob(manifest)
            if _is_gguf(blob):
                yield _found(f"ollama:{_ollama_name(manifest, manifests)}", blob, "Ollama")


def _ollama_blob(manifest: Path) -> str:
    """The file name of the weights; empty if the manifest names none."""
    try:
        document: Any = json.loads(manifest.read_text(encoding="utf-8"))
        layers = [layer for layer in document["layers"] if layer["mediaType"] == _OLLAMA_MODEL]
        return str(layers[0]["digest"]).replace(":", "-").replace("/", "") if layers else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _ollama_name(manifest: Path, manifests: Path) -> str:
    """As Ollama spells it: host and `library` are left out where they are its own."""
    *owner, tag = manifest.relative_to(manifests).parts
    name = "/".join(owner).removeprefix("registry.ollama.ai/").removeprefix("library/")
    return f"{name}:{tag}"


def _below(prefix: str, origin: str, folders: Iterable[Path]) -> Iterator[FoundModel]:
    """Models that are called as their files are below one of the folders."""
    for folder in folders:
        for path in _models_in(folder):
            yield _found(f"{prefix}:{path.relative_to(folder).as_posix()}", path, origin)


def _lm_studio_folders() -> Iterator[Path]:
    pointer = _text(Path.home() / ".lmstudio-home-pointer")
    homes = [Path(pointer)] if pointer else []
    homes += [Path.home() / ".lmstudio", Path.home() / ".cache/lm-studio"]
    for home in homes:
        yield home / "models"
        with suppress(ValueError, TypeError, KeyError):
            yield Path(json.loads(_text(home / "settings.json"))["downloadsFolder"])


def _cache() -> Path:
    """Of llama.cpp."""
    given = os.environ.get("LLAMA_CACHE")
    if given:
        return Path(given)
    if platform.system() == "Darwin":
        return Path.home() / "Library/Caches/llama.cpp"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llama.cpp"


def _models_in(folder: Path) -> Iterator[Path]:
    """First parts of GGUF files below a folder; their headers say which are models."""
    for path in sorted(path for path in _tree(folder) if path.suffix.lower() == ".gguf"):
        part = PART_NAME.fullmatch(path.name)
        is_later_part = part is not None and int(part[2]) != 1
        if not is_later_part and _is_gguf(path):
            yield path


def _found(name: str, path: Path, origin: str) -> FoundModel:
    return FoundModel(name, path, origin, sum(part.stat().st_size for part in parts_of(path)))


def _is_gguf(path: Path) -> bool:
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


def _tree(folder: Path) -> list[Path]:
    """Every file below; folders that may not be read are left out."""
    return [Path(place) / name for place, _, names in os.walk(folder) for name in names]


def _listing(folder: Path, pattern: str) -> list[Path]:
    try:
        return list(folder.glob(pattern))
    except OSError:
        return []


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


def known_names(start: str = "") -> list[str]:
    """Names that begin like this; those of other programs' models only after their prefix."""
    return _completions(start, _names(start))


def pulled_names(start: str) -> list[str]:
    """Names of pulled models that begin like this."""
    return _completions(start, _pulled())


def _completions(start: str, names: Iterable[str]) -> list[str]:
    """A broken file completes to nothing."""
    try:
        return sorted({name for name in names if name.startswith(start)})
    except (LocalspecError, OSError):
        return []


def _names(start: str) -> Iterator[str]:
    for entry in load_catalog().values():
        yield from (entry.name, *entry.aliases)
    yield from _pulled()
    if start.startswith((HUB, *ORIGINS)):
        yield from (model.name for model in found_models())


def _pulled() -> Iterator[str]:
    for file in pulled():
        yield file.name or file.reference
