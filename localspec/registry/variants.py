"""The models of a repository or a folder, told by the names of their files.

`Qwen3-8B-Q4_K_M.gguf` and `qwen3-8b-q8_0-00001-of-00002.gguf` agree in everything but the type, so
they are one model in two quantizations. A split file may have its type in its folder's name alone.
A file whose name tells no type is a model of its own. Names propose, headers decide: only a prefix
(`mtp-NAME.gguf`, `mmproj-NAME.gguf`) or a folder marks what goes beside a model, as the naming
rules of GGUF say; `NAME-MTP-Q4_0.gguf` is a model with its head inside.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

from localspec.gguf.reader import PART_NAME

TYPE = re.compile(
    r"(?<![A-Za-z0-9])((?:UD-)?(?:I?Q\d{1,2}(?:_[A-Z0-9]{1,3}){0,3}|TQ\d_\d|MXFP\d(?:_MOE)?|NVFP\d"
    r"|BF16|FP?16|FP?32))(?![A-Za-z0-9_])",
    re.IGNORECASE,
)
_BESIDE = r"mmproj|mtp|eagle3|dflash|dspark|imatrix"
BESIDE = re.compile(rf"(^|/)({_BESIDE})[-_./][^/]*$|(^|/)({_BESIDE})/", re.IGNORECASE)
_CALIBRATION = re.compile(r"(^|[-_./])imatrix([-_.]|$)", re.IGNORECASE)
MOST_NAMED = 8


@dataclass(frozen=True, slots=True)
class RepositoryFile:
    """A file in the listing of a repository."""

    file: str
    n_bytes: int


@dataclass(frozen=True, slots=True)
class Variant:
    """One quantization: its name, its file (the first part of a split one), bytes of all parts.

    `type` is empty where the file's name tells none.
    """

    type: str
    file: str
    n_bytes: int


def quantization_of(file: str) -> str | None:
    """The type that a file's name tells, in capitals: `Q4_K_M`."""
    found = TYPE.findall(_stem(file))
    return _plain(found[-1]) if found else None


def _plain(kind: str) -> str:
    return re.sub(r"^FP(?=\d)", "F", kind.upper())


def goes_beside(file: str) -> bool:
    """Whether its name says that it goes with a model: a head, a projector, a matrix."""
    if BESIDE.search(file):
        return True
    return quantization_of(file) is None and _CALIBRATION.search(_stem(file)) is not None


_HEADS = re.compile(r"(^|/)(mtp|eagle3|dflash|dspark)[-_./]|-assistant[-_.]", re.IGNORECASE)


def names_a_head(file: str) -> bool:
    """Whether its name proposes a draft head, which its header has to confirm."""
    return _HEADS.search(file) is not None


def variants(files: Iterable[RepositoryFile], like: str | None = None) -> list[Variant]:
    """The quantizations of a repository, by size; of the model that the file `like` is of."""
    found: dict[tuple[str, str], list[RepositoryFile]] = {}
    for file in files:
        if not goes_beside(file.file):
            key = model_of(file.file), quantization_of(file.file) or ""
            found.setdefault(key, []).append(file)
    wanted = None if like is None else model_of(like)
    chosen = [
        Variant(kind, min(part.file for part in parts), sum(part.n_bytes for part in parts))
        for (model, kind), parts in found.items()
        if wanted in (None, model)
    ]
    return sorted(chosen, key=lambda variant: (variant.n_bytes, variant.file))


def by_model(found: Iterable[Variant]) -> dict[str, list[Variant]]:
    """Variants by the model that their names tell."""
    models: dict[str, list[Variant]] = {}
    for variant in found:
        models.setdefault(model_of(variant.file), []).append(variant)
    return models


def with_tag(found: Sequence[Variant], tag: str) -> list[Variant]:
    """Those that a tag means: a file, a type in any case, a folder, or a part of the name.

    The first of these meanings that fits decides; `Q4_K_XL` means `UD-Q4_K_XL` where that is alone.
    With `*` it is a pattern of file names.
    """
    wanted = tag.casefold()
    if "*" in tag:
        return [one for one in found if fnmatch(one.file.casefold(), f"*{wanted}*")]
    kind = re.sub(r"^UD_", "UD-", re.sub(r"(?<!UD)[- ]", "_", _plain(tag)))
    part = re.compile(rf"(^|[-_./]){re.escape(wanted)}([-_./]|$)")
    meanings = (
        lambda one: wanted in (one.file.casefold(), _base(one.file).casefold()),
        lambda one: one.type == kind,
        lambda one: one.type.removeprefix("UD-") == kind,
        lambda one: wanted in one.file.casefold().split("/")[:-1],
        lambda one: part.search(_stem(one.file).casefold()) is not None,
    )
    chosen = ([one for one in found if is_meant(one)] for is_meant in meanings)
    return next(filter(None, chosen), [])


def in_folder(found: Sequence[Variant], folder: str) -> list[Variant]:
    """Those below a folder of the repository; none there: those that it names as a tag would."""
    start = f"{folder.strip('/')}/".casefold()
    inside = [one for one in found if one.file.casefold().startswith(start)]
    return inside or with_tag(found, folder)


def few(names: Sequence[str], most: int = MOST_NAMED) -> str:
    """The first of them, for a message."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def model_of(file: str) -> str:
    """The name without the type, the folder and the signs between."""
    name = TYPE.sub("", _base(_stem(file)))
    return re.sub(r"[-_. ]+", "-", name).strip("-").casefold()


def _stem(file: str) -> str:
    part = PART_NAME.fullmatch(file)
    return part[1] if part else re.sub(r"\.gguf$", "", file, flags=re.IGNORECASE)


def _base(file: str) -> str:
    return file.rpartition("/")[2]
