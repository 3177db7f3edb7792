"""What every test can rely on."""

import shutil
from pathlib import Path

import pytest

from localspec import paths
from localspec.engine.health import engine_health


@pytest.fixture(scope="session")
def tested_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the engine build has been tested, which takes a second or two."""
    home = tmp_path_factory.mktemp("tested-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCALSPEC_HOME", str(home))
        engine_health(lambda message: None)
    return home


@pytest.fixture(autouse=True)
def localspec_home(tmp_path: Path, tested_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the user's own configuration, data or caches."""
    home = tmp_path / "localspec-home"
    shutil.copytree(tested_home, home)
    monkeypatch.setenv("LOCALSPEC_HOME", str(home))
    return home


@pytest.fixture
def untested_home(localspec_home: Path) -> Path:
    """A home in which nothing is known of the engine build."""
    shutil.rmtree(paths.cache_dir() / "engine-health")
    return localspec_home
