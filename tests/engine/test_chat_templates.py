"""Chat templates of files: broken ones cost no loading, missing ones have a stand-in."""

from pathlib import Path

import pytest
from command import assert_refused, localspec, tiny
from scripted import Script, write_script

import localspec.session.session as session_module
from localspec.dialogue.template import TemplateError
from localspec.session.session import Session
from localspec.session.session_config import SessionConfig

pytestmark = pytest.mark.engine
QUICK = ("--temp", "0", "--spec", "none", "-n", "8")
WORKING = "{% for m in messages %}{{ m.content }}{% endfor %}<|gen|>"
BROKEN = {
    "unknown tag": "{% generations %}x{% endgenerations %}<|gen|>",
    "too deep": "{{ " + "(" * 300 + "1" + ")" * 300 + " }}<|gen|>",
    "endless to compile": "{{ 9 ** 999999999 }}<|gen|>",
}


def scripted(path: Path, template: str, *control: str, start: str = "<|gen|>") -> Path:
    return write_script(path, Script(("Hello", " there"), template, control, start=start))


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_template_costs_no_loading(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of 70 GB would be read for minutes before one sentence."""
    config = SessionConfig.of(scripted(tmp_path / "m.gguf", BROKEN[kind]))
    monkeypatch.setattr(session_module, "load_engine", None)
    with pytest.raises(TemplateError):
        Session.open(config, talks=True)


def test_every_command_has_a_way_on_from_a_broken_template(tmp_path: Path) -> None:
    path = scripted(tmp_path / "m.gguf", BROKEN["unknown tag"])
    asked = localspec("generate", path, *QUICK, "-p", "hi")
    assert_refused(asked, 1, "generations", "--raw", "--template chatml")
    raw = localspec("generate", path, *QUICK, "-p", "hi<|gen|>", "--raw")
    assert (raw.code, raw.stdout) == (0, "Hello there\n"), raw.stderr
    talked = localspec("chat", path, *QUICK, "-p", "hi", "--no-save")
    assert talked.code == 1
    assert "--template chatml" in talked.stderr
    assert "--raw" not in talked.stderr


def test_a_template_that_fails_on_a_message_is_a_sentence(tmp_path: Path) -> None:
    source = "{% if 'bad' in messages[-1].content %}{{ 'x' * 1900000000 }}{% endif %}" + WORKING
    path = scripted(tmp_path / "m.gguf", source)
    assert localspec("generate", path, *QUICK, "-p", "very good").stdout == "Hello there\n"
    assert_refused(localspec("generate", path, *QUICK, "-p", "very bad"), 1, "128 MB", "--raw")


def test_control_tokens_name_the_template_of_a_file_without_one(tmp_path: Path) -> None:
    path = scripted(tmp_path / "m.gguf", "", "<|im_start|>", "<|im_end|>", start="\n")
    run = localspec("generate", path, *QUICK, "-p", "hi", "--json")
    assert run.code == 0, run.stderr
    assert run.document["text"] == "Hello there"
    n_letters = len("user\nhi\nassistant\n")
    assert run.document["prompt_tokens"] == n_letters + 3, "control tokens are one token each"
    (note,) = run.stderr.splitlines()
    assert "chatml" in note


def test_a_base_model_is_said_to_be_one_in_one_line() -> None:
    run = localspec("generate", tiny(), *QUICK, "-p", "hi")
    (line,) = run.stderr.splitlines()
    assert "--template chatml" in line
    assert "--template" not in localspec("generate", tiny(), *QUICK, "-p", "hi", "--raw").stderr
    talked = localspec("chat", tiny(), *QUICK, "-p", "hi", "--no-save")
    assert talked.stderr.count("--template chatml") == 1
