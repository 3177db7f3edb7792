"""Write a model in another weight type with libllama's own quantizer: a whole file or none.

The quantizer is one long call in a child process, so that Ctrl-C stops it and a damaged file does
not end the session.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from localspec.engine.child import call
from localspec.errors import ModelError, UserError
from localspec.gguf.reader import read_header
from localspec.model.usable import check_usable
from localspec.store import write_whole

CHILD = "localspec.engine.llama.quantizer:write"
WEIGHT_TYPES = (
    "F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S",
    "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K",
)  # fmt: skip
"""What can be made without an importance matrix, largest first."""

_BITS = {"F32": 32, "F16": 16, "BF16": 16}


def quantize(
    source: Path,
    target: Path,
    weight_type: str,
    n_threads: int,
    on_progress: Callable[[float], None] = lambda fraction: None,
) -> int:
    """Write `source` as `target` in `weight_type`; the new file's size in bytes.

    Raises UserError for an unknown type or a target that exists, ModelError where it cannot be
    done.
    """
    kind = weight_type.upper()
    if kind not in WEIGHT_TYPES:
        raise UserError(
            f"{weight_type!r} is not a weight type: choose one of {', '.join(WEIGHT_TYPES)}"
        )
    _check(source, target, kind)
    with write_whole(target) as partial:
        ending = call(CHILD, str(source), str(partial), kind, n_threads, hear=on_progress)
        ending.raise_known()
        reason = ending.result if ending.is_success else ending.reason
        if reason:
            raise ModelError(f"{source.name} could not be written as {kind}: {reason}")
    return target.stat().st_size


def _check(source: Path, target: Path, kind: str) -> None:
    if target.is_dir():
        raise UserError(f"{target} is a folder: name a file with -o")
    if target.exists():
        raise UserError(f"{target} exists already: remove it or name another file with -o")
    header = read_header(source)
    check_usable(header)
    if not target.parent.is_dir():
        raise UserError(f"there is no folder {target.parent}: make it or choose another with -o")
    needed = sum(tensor.n_elements for tensor in header.tensors) * _BITS.get(kind, 8) // 8
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        raise UserError(
            f"{target.parent} has {free / 1e6:,.1f} MB free, {needed / 1e6:,.1f} may be needed: "
            "make room or choose another folder with -o"
        )
