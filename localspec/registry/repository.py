"""Which file of a hub's repository is meant: by its listing, and by headers where names fail.

A tag names a quantization, a folder or a file. Where several models remain, the header of one file
of each is read: heads, projectors and what else is no model falls away, whatever it is called.
"""

from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import quote

from localspec.errors import ModelError, UserError
from localspec.gguf.hub_name import HUB, HubFile, HubRepository, with_file
from localspec.gguf.remote import read_remote
from localspec.model.kind import kind_of
from localspec.notify import Notify
from localspec.registry.catalog import named_entry
from localspec.registry.remote_file import (
    NoSuchFileError,
    RefusedError,
    RemoteFile,
    describe,
    repository_files,
    repository_folder,
    repository_id,
)
from localspec.registry.variants import (
    RepositoryFile,
    Variant,
    by_model,
    few,
    goes_beside,
    in_folder,
    quantization_of,
    variants,
    with_tag,
)

USUAL = "Q4_K_M"
MOST_READ = 8
"""Headers that are read to tell models from what goes beside them."""


def variants_of(name: HubRepository, notify: Notify, like: str | None = None) -> list[Variant]:
    """What a name can mean in its repository, by size; of the model that the file `like` is of.

    Raises UserError where there is nothing of the kind, or several models are, and ModelError.
    """
    files = gguf_files(name, notify)
    found = variants(files, like) or [_alone(file) for file in files if like is None]
    beside = [_alone(file) for file in files if goes_beside(file.file)]
    if name.folder:
        inside = in_folder(found, name.folder) or in_folder(beside, name.folder)
        found = _some(inside, name, files)
    if name.tag:
        tagged = with_tag(found, name.tag) or with_tag(beside, name.tag)
        found = _some(tagged, name, files)
    return found if like is not None else _of_one_model(name, found)


def _alone(file: RepositoryFile) -> Variant:
    return Variant(quantization_of(file.file) or "", file.file, file.n_bytes)


def gguf_files(name: HubRepository, notify: Notify) -> list[RepositoryFile]:
    """UserError with the next step where a repository has none."""
    try:
        files = repository_files(name.repository, name.revision, notify)
    except RefusedError as error:
        entry = named_entry(_plain(name))[0]
        if entry is None or entry.repository == name.repository:
            raise
        raise ModelError(f"{error}; `localspec pull {entry.name}` gets that model") from error
    found = [file for file in files if file.file.lower().endswith(".gguf")]
    if not found:
        raise UserError(_without_gguf(name, [file.file for file in files]))
    return found


def _plain(name: HubRepository) -> str:
    """The name of a repository, which may be that of an entry: `qwen/qwen3-8b` of LM Studio."""
    return name.repository.rpartition("/")[2]


def _without_gguf(name: HubRepository, files: Sequence[str]) -> str:
    repository = _plain(name)
    kinds = {"safetensors": ".safetensors", "PyTorch weights": ".bin", "ONNX": ".onnx"}
    have = next((kind for kind, end in kinds.items() if any(f.endswith(end) for f in files)), None)
    only = f"only {have}, which llama.cpp does not read" if have else "no model at all"
    entry = named_entry(repository)[0]
    where = (
        f"`localspec pull {entry.name}` gets it as GGUF"
        if entry
        else "look for a GGUF of it at https://huggingface.co/models?library=gguf&search="
        + quote(repository)
    )
    return f"{HUB}{name.repository} has {only}: {where}"


def _some(found: list[Variant], name: HubRepository, files: list[RepositoryFile]) -> list[Variant]:
    if found:
        return found
    what = name.tag or name.folder
    names = [one.file for one in variants(files)] or [file.file for file in files]
    raise UserError(f"{HUB}{name.repository} has no {what}: name one of {_offers(name, names)}")


def _offers(name: HubRepository, files: Sequence[str]) -> str:
    return few([with_file(name, file).name for file in sorted(files)])


def in_right_capitals(files: tuple[RemoteFile, ...], notify: Notify) -> tuple[RemoteFile, ...]:
    """The same by the hub's own spelling of their repository, which it knows by any: each would get
    a folder of its own in the cache. A renamed one keeps the name that was asked for."""
    wanted = files[0].hub
    if wanted is None or repository_folder(wanted.repository).exists():
        return files
    try:
        known = repository_id(wanted.repository, notify)
    except (ModelError, UserError):
        return files
    is_other = known != wanted.repository and known.casefold() == wanted.repository.casefold()
    return describe(replace(wanted, repository=known).name, notify) if is_other else files


def described(file: HubFile, notify: Notify) -> tuple[RemoteFile, ...]:
    """As `describe`; in other capitals, too. Where the file is not in its repository, its files are
    offered."""
    try:
        return describe(file.name, notify)
    except NoSuchFileError as error:
        name = HubRepository(file.repository, revision=file.revision)
        listed = gguf_files(name, notify)
        same = [one.file for one in listed if one.file.casefold() == file.file.casefold()]
        if len(same) == 1 and same != [file.file]:
            return describe(with_file(name, same[0]).name, notify)
        beside = [one.file for one in listed if goes_beside(one.file)]
        files = [one.file for one in variants(listed)] + beside
        raise ModelError(
            f"{file.name} does not exist in its repository: name one of {_offers(name, files)}"
        ) from error


def _of_one_model(name: HubRepository, found: list[Variant]) -> list[Variant]:
    """The variants of the one model among them."""
    models = by_model(found)
    if len(models) > 1:
        typed = {model: kinds for model, kinds in models.items() if any(k.type for k in kinds)}
        models = typed or models
    if 1 < len(models) <= MOST_READ:
        models = {m: kinds for m, kinds in models.items() if _is_model(name, kinds[0])} or models
    if len(models) > 1:
        files = [variant.file for kinds in models.values() for variant in kinds]
        raise UserError(f"{name.name} has several models: name one of {_offers(name, files)}")
    return next(iter(models.values()))


def _is_model(name: HubRepository, variant: Variant) -> bool:
    """By its header; a file that cannot be read is told by who reads it next."""
    try:
        return kind_of(read_remote(with_file(name, variant.file).name)).is_model
    except ModelError:
        return True


def usual_file(name: HubRepository, notify: Notify) -> str:
    """The reference of the file whose header stands for a repository: Q4_K_M, or the middle one."""
    found = variants_of(name, notify)
    usual = next((one for one in found if one.type.removeprefix("UD-") == USUAL), None)
    return with_file(name, (usual or found[len(found) // 2]).file).name
