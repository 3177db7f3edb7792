"""Files of localspec's own: whole or as before, and documents found again."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from localspec.errors import UserError
from localspec.store import (
    UNREADABLE,
    Kept,
    document_of,
    hashed,
    read_text,
    value_of,
    write_text,
    write_whole,
)


@pytest.mark.parametrize("is_lasting", [True, False])
def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, is_lasting: bool) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "document"
    write_text(path, "old")

    def fails_midway() -> None:
        with write_whole(path, is_lasting=is_lasting) as partial:
            partial.write_text("half")
            assert path.read_text() == "old"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails_midway()
    assert path.read_text() == "old"
    assert list(folder.iterdir()) == [path]
    with write_whole(path, is_lasting=is_lasting) as partial:
        partial.write_text("new")
    assert path.read_text() == "new"
    assert list(folder.iterdir()) == [path]


def test_bytes_are_on_the_disk_before_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut after the renaming must not leave an empty file."""
    path, forced = tmp_path / "document", list[bool]()
    monkeypatch.setattr(os, "fsync", lambda descriptor: forced.append(path.exists()))
    write_text(path, "text")
    assert forced == [False]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        write_text(tmp_path / "none" / "document", "text")


def read(document: dict[str, object]) -> int:
    return int(str(document["number"]))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "3", '{"number": "x"}', '{"other": 1}', b"\xff\xfe"]
)
def test_a_damaged_document_is_as_good_as_none(tmp_path: Path, text: str | bytes) -> None:
    kept = Kept(hashed(tmp_path / "folder", "key"), read, lambda number: {"number": number})
    assert kept.load() is None
    kept.save(3)
    assert kept.load() == 3
    kept.path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert kept.load() is None
    kept.save(4)
    assert json.loads(kept.path.read_text()) == {"number": 4}
    assert hashed(tmp_path / "folder", "another key") != kept.path


def test_a_document_that_cannot_be_kept_is_as_good_as_none(tmp_path: Path) -> None:
    """Whoever measured it goes on."""
    (tmp_path / "file").touch()
    kept = Kept(
        hashed(tmp_path / "file" / "folder", "key"), read, lambda number: {"number": number}
    )
    kept.save(3)
    assert kept.load() is None


def test_a_text_that_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    for name, reason in (("none.txt", "No such file"), ("latin.txt", "UTF-8")):
        with pytest.raises(UserError, match=f"--text {name} cannot be read: .*{reason}"):
            read_text(tmp_path / name, f"--text {name}")


@dataclass(frozen=True)
class Inner:
    numbers: tuple[float, ...]
    by_width: Mapping[int, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Outer:
    inner: Inner
    pairs: tuple[tuple[str, str], ...]
    path: Path | None = None
    missing: Inner | None = None
    also: str = "a default"


def test_values_come_back_from_their_documents() -> None:
    value = Outer(Inner((1.0, 2.5), {4: (1, 2)}), (("a", "b"),), Path("model.gguf"))
    assert value_of(Outer, json.loads(json.dumps(document_of(value)))) == value


def test_documents_of_earlier_and_later_versions_are_read() -> None:
    """A field that is missing has its default; one that is not known does no harm."""
    document = {"inner": {"numbers": [1.0], "new": 1}, "pairs": [], "later": {}}
    assert value_of(Outer, document) == Outer(Inner((1.0,)), ())
    for wrong in ({"inner": {}}, {"inner": 3, "pairs": []}, [], None):
        with pytest.raises(UNREADABLE):
            value_of(Outer, wrong)
