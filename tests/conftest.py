"""What every test can rely on."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def localspec_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the user's own configuration, data or caches."""
    home = tmp_path / "localspec-home"
    monkeypatch.setenv("LOCALSPEC_HOME", str(home))
    return home
