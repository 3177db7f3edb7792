"""References on disk: reading the whole text takes half a minute to minutes, and is done once."""

import hashlib
from pathlib import Path

from localspec import paths
from localspec.engine.build import engine_fingerprint
from localspec.model.digest import model_digest
from localspec.quality.reference import Reference
from localspec.quality.windows import Windows

MOST_KEPT = 4
"""Files; one of the whole text that ships has 60 MB."""


def kept_reference(model: Path, windows: Windows) -> Reference | None:
    """What was kept of a model's predictions on these windows by this engine build."""
    return Reference.load(_path(model, windows), windows.n_windows)


def keep_reference(reference: Reference, model: Path, windows: Windows) -> None:
    """Keep it, and the newest few others."""
    path = _path(model, windows)
    reference.save(path)
    by_age = sorted(path.parent.glob("*.npz"), key=lambda file: file.stat().st_mtime)
    for old in by_age[:-MOST_KEPT]:
        old.unlink(missing_ok=True)


def _path(model: Path, windows: Windows) -> Path:
    tokens = hashlib.sha256(windows.tokens.tobytes()).hexdigest()
    key = f"{model_digest(model)} {tokens} {windows.tokens.shape} {engine_fingerprint()}"
    folder = paths.cache_dir() / "quality"
    folder.mkdir(exist_ok=True)
    return folder / f"{hashlib.sha256(key.encode()).hexdigest()[:20]}.npz"
