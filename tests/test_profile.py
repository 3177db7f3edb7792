"""Tuned settings and how they come back: never a crash, always a line, flags first."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from command import localspec, tiny

from localspec import paths
from localspec.gguf.reader import fingerprint
from localspec.session.profile import (
    Profile,
    TunedFor,
    find_profile,
    save_profile,
    with_profile,
)
from localspec.settings import Settings

SETTINGS = {"kv_k": "bf16", "kv_v": "bf16", "flash_attn": "off", "threads": 1}


def kept(**changes: object) -> Profile:
    profile = Profile("tiny.gguf", "2026-11-25", 2048, "speed", TunedFor.now(), SETTINGS)
    profile = replace(profile, ratio=(1.5, 1.8, 2.0), kld=0.003, seconds=50.0)
    return replace(profile, **changes)


def profile_file() -> Path:
    return next((paths.data_dir() / "profiles").glob("*.json"))


def applied(given: frozenset[str] = frozenset()) -> tuple[Settings, list[str]]:
    said: list[str] = []
    return with_profile(tiny(), Settings(), given, said.append), said


def test_what_was_kept_comes_back() -> None:
    assert find_profile(tiny()).profile is None
    save_profile(tiny(), kept())
    assert find_profile(tiny()).profile == kept()
    settings, said = applied()
    assert (settings.kv_k, settings.kv_v, settings.flash_attn, settings.threads) == (
        "bf16", "bf16", "off", 1,
    )  # fmt: skip
    assert len(said) == 1
    assert "--no-profile" in said[0]


def test_flags_go_before_the_profile_field_by_field() -> None:
    save_profile(tiny(), kept())
    settings, _ = applied(frozenset({"kv_k", "threads"}))
    assert (settings.kv_k, settings.kv_v, settings.threads) == ("f16", "bf16", None)


@pytest.mark.parametrize(
    ("tuned", "given"),
    [
        ({"kv_v": "q8_0", "flash_attn": "on"}, {"flash_attn"}),
        ({"flash_attn": "off"}, {"kv_v"}),
        ({"spec": "draft", "draft": os.devnull}, {"draft"}),
        ({"threads_batch": 2}, {"threads"}),
    ],
)
def test_what_a_flag_contradicts_goes_too(tuned: dict[str, object], given: set[str]) -> None:
    """A quantized value cache needs flash attention: the user's `off` must not fail on it."""
    save_profile(tiny(), kept(settings=tuned))
    settings, _ = applied(frozenset(given))
    assert settings == Settings()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"engine": "other"}, "another engine build"),
        ({"power": "on battery, somewhere"}, "on battery"),
        ({"memory_bytes": 1_000_000_000}, "1.0 GB"),
    ],
)
def test_a_stale_profile_is_a_line_and_the_defaults(changes: dict[str, object], word: str) -> None:
    save_profile(tiny(), kept(circumstances=replace(TunedFor.now(), **changes)))
    settings, said = applied()
    assert settings == Settings()
    assert len(said) == 1
    assert word in said[0]
    assert "localspec tune" in said[0]


def test_other_power_states_have_their_own() -> None:
    battery = replace(TunedFor.now(), power="on battery")
    save_profile(tiny(), kept(circumstances=battery, settings={"threads": 1}))
    save_profile(tiny(), kept())
    save_profile(tiny(), kept(settings={"kv_k": "q8_0"}))
    assert applied()[0].kv_k == "q8_0"
    assert len(json.loads(profile_file().read_text())["profiles"]) == 2


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", "null", '{"version": 99, "profiles": []}',
        '{"version": 1, "profiles": [{"settings": {"threads": -4}}]}',
        '{"version": 1, "profiles": 3}', "\x00\xff",
    ],
)  # fmt: skip
def test_a_corrupt_file_is_a_line_and_the_defaults(content: str) -> None:
    save_profile(tiny(), kept())
    profile_file().write_text(content, encoding="latin-1")
    settings, said = applied()
    assert settings == Settings()
    assert len(said) == 1
    assert "cannot be read" in said[0]
    save_profile(tiny(), kept())
    assert find_profile(tiny()).profile == kept(), "tuning again mends it"


@pytest.mark.parametrize(
    "settings",
    [{"kv_k": "q9_9"}, {"threads": True}, {"spec": 3}, {"model": "x"}, {"draft_max": 0}],
)
def test_settings_that_mean_nothing_are_not_used(settings: dict[str, object]) -> None:
    save_profile(tiny(), kept())
    document = json.loads(profile_file().read_text())
    document["profiles"][0]["settings"] = settings
    profile_file().write_text(json.dumps(document))
    assert applied()[0] == Settings()


def test_a_draft_that_is_gone_is_a_line(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone.gguf")
    save_profile(tiny(), kept(settings={"draft": gone, "spec": "draft", "kv_k": "bf16"}))
    settings, said = applied()
    assert (settings.draft, settings.spec, settings.kv_k) == ("auto", "auto", "bf16")
    assert any("gone.gguf" in line for line in said)


def test_a_model_is_known_by_its_content(tmp_path: Path) -> None:
    copy = tmp_path / "renamed.gguf"
    shutil.copy(tiny(), copy)
    assert fingerprint(copy) == fingerprint(tiny())
    with copy.open("r+b") as file:
        file.seek(-10, os.SEEK_END)
        file.write(b"other")
    assert fingerprint(copy) != fingerprint(tiny())


@pytest.mark.engine
def test_generate_uses_it_and_says_so() -> None:
    save_profile(tiny(), kept())
    arguments = ("generate", str(tiny()), "-p", "x", "--raw", "-n", "2", "--temp", "0", "--json")
    run = localspec(*arguments)
    assert run.document["config"]["kv_k"] == "bf16"
    assert "tuned 2026-11-25" in run.stderr
    run = localspec(*arguments, "--kv-k", "q8_0")
    assert (run.document["config"]["kv_k"], run.document["config"]["kv_v"]) == ("q8_0", "bf16")
    run = localspec(*arguments, "--no-profile")
    assert run.document["config"]["kv_k"] == "f16"
    assert "tuned" not in run.stderr


def test_show_says_what_is_kept() -> None:
    run = localspec("tune", str(tiny()), "--show")
    assert (run.code, run.stdout) == (0, "")
    assert "run `localspec tune`" in run.stderr
    save_profile(tiny(), kept())
    assert "1.80 x" in localspec("tune", str(tiny()), "--show").stdout
    document = localspec("tune", str(tiny()), "--show", "--json").document
    assert document["settings"] == {**SETTINGS, "n_threads": 1}, "no field is lost"
    assert document["ratio"] == {"low": 1.5, "mid": 1.8, "high": 2.0}
    assert (document["kld"], document["seconds"]) == (0.003, 50.0)


def test_a_tuned_head_in_the_models_own_file_is_no_missing_file() -> None:
    save_profile(tiny(), kept(settings={"draft": "own", "spec": "mtp"}))
    settings, notes = applied(frozenset())
    assert (settings.draft, settings.spec) == ("own", "mtp")
    assert not any("is not there" in note for note in notes)
