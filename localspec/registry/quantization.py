"""Quantizations of one model in a repository, told by the names of its files.

`Qwen3-8B-Q4_K_M.gguf` and `qwen3-8b-q8_0-00001-of-00002.gguf` are one model in two; what stands
around the type must be the same.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from localspec.model.gguf import PART_NAME
from localspec.registry.remote_file import Listed

_TYPE = re.compile(
    r"(?<![A-Za-z0-9])((?:UD-)?(?:I?Q\d_(?:K(?:_(?:XL|[SML]))?|XXS|XS|NL|[SM]|\d)|TQ\d_0"
    r"|MXFP4(?:_MOE)?|NVFP4|BF16|F16|F32))(?![A-Za-z0-9_])",
    re.IGNORECASE,
)
_NO_MODELS = re.compile(r"(^|[-_./])(mmproj|imatrix|mtp|eagle3?|dflash)[-_.]", re.IGNORECASE)


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


def variants(files: Iterable[Listed], like: str | None = None) -> list[Variant]:
    """The quantizations of a repository, by size; of the model that the file `like` is of."""
    found: dict[tuple[str, str], list[Listed]] = {}
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


def models_of(files: Iterable[Listed]) -> set[str]:
    """How many models a repository has, whatever their quantization."""
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
