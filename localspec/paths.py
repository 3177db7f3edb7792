"""Where localspec keeps its own files; `LOCALSPEC_HOME` moves every one of them.

Folders follow the platform's customs (platformdirs) and are made when first asked for.
"""

import os
from collections.abc import Callable
from pathlib import Path

import platformdirs

APP = "localspec"


class NoFolderError(OSError):
    """A folder of localspec's own cannot be made; LOCALSPEC_HOME may name another place."""


def config_dir() -> Path:
    """The user's settings: their own models.toml."""
    return _folder("config", platformdirs.user_config_path)


def data_dir() -> Path:
    """What must not be lost: sessions, results, profiles."""
    return _folder("data", platformdirs.user_data_path)


def cache_dir() -> Path:
    """What can be made again: verdicts on engine builds, measurements, assembled models."""
    return _folder("cache", platformdirs.user_cache_path)


def _folder(kind: str, platform_default: Callable[..., Path]) -> Path:
    home = os.environ.get("LOCALSPEC_HOME")
    path = Path(home).expanduser() / kind if home else platform_default(APP, appauthor=False)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NoFolderError(error.errno, error.strerror, str(path)) from error
    return path
