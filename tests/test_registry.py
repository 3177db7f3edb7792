"""Names to files."""

from pathlib import Path

import pytest

from localspec import paths
from localspec.errors import UserError
from localspec.registry.catalog import load_catalog
from localspec.registry.resolve import draft_of, resolve

ENTRY = """
[models.{name}]
title = "Mine"
repository = "me/mine"
file = "{file}"
license = "MIT"
{more}
"""


def add(name: str, file: str = "mine.gguf", more: str = "") -> None:
    own = paths.config_dir() / "models.toml"
    text = own.read_text() if own.exists() else ""
    own.write_text(text + ENTRY.format(name=name, file=file, more=more))


def test_the_starter_is_the_installed_package() -> None:
    path = resolve(None)
    assert path == resolve("starter")
    assert path.name == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert path.stat().st_size > 90e6


def test_the_user_s_own_entry_wins() -> None:
    add("starter")
    assert load_catalog()["starter"].title == "Mine"


def test_a_near_name_is_suggested() -> None:
    add("my-model")
    with pytest.raises(UserError, match="did you mean 'my-model'"):
        resolve("my-modle")


def test_a_pair_uses_its_draft_only_if_it_is_here() -> None:
    """A draft that must be fetched first would make a first answer wait for a download."""
    add("absent")
    add("pair", more='draft = "absent"')
    assert draft_of("pair") is None
    starter = load_catalog()["starter"]
    add("other", more='draft = "starter"')
    assert draft_of("other") == resolve("starter")
    assert starter.draft is None


def test_a_file_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("starter").write_bytes(b"GGUF")
    assert resolve("starter") == Path("starter")
