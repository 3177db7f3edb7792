"""When a model was last used, which `list` shows; a disk that fails does no harm."""

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from localspec import paths
from localspec.registry.lock import replace_text


def mark_used(path: Path) -> None:
    """Note that the model at `path` is used now."""
    with suppress(OSError):
        times = last_used() | {str(path): datetime.now(UTC).isoformat(timespec="seconds")}
        replace_text(_usage_path(), json.dumps(times, indent=1) + "\n")


def last_used() -> dict[str, str]:
    """Times in ISO 8601 by path; empty where nothing is known."""
    try:
        times = json.loads(_usage_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return times if isinstance(times, dict) else {}


def _usage_path() -> Path:
    return paths.data_dir() / "last-used.json"
