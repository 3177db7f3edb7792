"""The commands doing their work: answers on stdout, talk on stderr, JSON by its reference."""

import inspect
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command import (
    ANSWER,
    LOCALSPEC,
    Run,
    finish,
    localspec,
    mamba,
    start_with_input,
    tiny,
)
from models import smollm2
from typer.main import get_command

from localspec.cli.main import COMMANDS as OVERVIEW
from localspec.cli.main import app
from localspec.cli.options import read_quickly

COMMANDS = ("chat", "generate", "quantize", "doctor")
QUESTION = ("-p", "Count from one to ten, then again from one to ten.")
KEYS = {
    "": "text thought tool_call tokens logprobs finish_reason prompt_tokens completion_tokens "
    "thought_tokens timings speculation prediction computed_on config",
    "timings": "load_s prefill_s ttft_s decode_s prefill_tps decode_tps tpot_ms",
    "speculation": "drafted accepted passes tokens_per_pass by_source decisions gain story",
}
SELF_TEST = "localspec.engine.llama.trial:"


def ask(*options: str | Path, model: Path | None = None, **environment: str) -> Run:
    """Ask the tiny model, or another, and be sure that it answers."""
    run = localspec("generate", model or tiny(), *ANSWER, *options, **environment)
    assert run.code == 0, run.stderr
    return run


def imported(code: str) -> set[str]:
    """The modules that are loaded after `code`."""
    program = f"import sys\n{code}\nprint('\\n'.join(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    return set(done.stderr.decode().split())


def test_help_loads_nothing_heavy() -> None:
    """It has to be there in 300 ms; NumPy alone takes a third of that."""
    modules = imported("from localspec.cli.main import run\nrun(['--help'])")
    assert "typer" in modules
    assert not modules & {"numpy", "llama_cpp", "huggingface_hub", "jinja2", "psutil"}


@pytest.mark.parametrize(
    "interrupt", ["KeyboardInterrupt", "RuntimeError('__set_name__') from KeyboardInterrupt()"]
)
@pytest.mark.parametrize("module", ["localspec.cli", "typer", "json", "localspec.settings"])
def test_ctrl_c_while_a_module_is_imported_is_a_sentence(module: str, interrupt: str) -> None:
    """Whichever one it is; Python 3.11 wraps a Ctrl-C while it makes a class."""
    program = f"""if True:
        import sys
        class Interrupts:
            def find_spec(name, *_):
                if name == {module!r}:
                    raise {interrupt}
        sys.meta_path.insert(0, Interrupts)
        from localspec.__main__ import main
        main()"""
    done = subprocess.run([sys.executable, "-c", program, "list"], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"localspec: interrupted\n"


def test_importing_localspec_does_not_load_the_engine() -> None:
    modules = imported("import localspec, localspec.session.session, localspec.registry.resolve")
    assert not modules & {"llama_cpp", "huggingface_hub", "typer"}


def test_the_prompt_of_a_chat_waits_for_no_module_that_only_answers_need() -> None:
    modules = imported("import localspec.chat.terminal, localspec.chat.repl, localspec.cli.chat")
    assert not modules & {
        "huggingface_hub",
        "jinja2",
        "localspec.forecast.forecast",
        "localspec.session.session",
        "localspec.session.loading",
    }


def test_without_arguments_there_is_help() -> None:
    run = localspec()
    assert (run.code, run.stderr) == (0, "")
    for command in COMMANDS:
        assert command in run.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    run = localspec(command, "-h" if command == "chat" else "--help")
    assert (run.code, run.stderr) == (0, "")
    assert f"localspec {command}" in run.stdout


def test_the_overview_says_what_each_command_says() -> None:
    for name, command in get_command(app()).commands.items():  # type: ignore[attr-defined]
        first = inspect.getdoc(command.callback).split("\n\n")[0].replace("\n", " ")
        assert OVERVIEW[name] == first, name


def test_the_version_is_data() -> None:
    run = localspec("--version")
    assert (run.code, run.stderr) == (0, "")
    assert run.stdout.startswith("localspec 0.")


@pytest.mark.engine
def test_the_starter_answers_without_a_network() -> None:
    """The first command of a new user, on a machine that only has the package index."""
    run = localspec("generate", *ANSWER, "-p", "Say hello.", "-n", "30")
    assert run.code == 0, run.stderr
    assert "hello" in run.stdout.lower()
    assert run.stdout.endswith("\n")
    (summary,) = run.stderr.splitlines()
    assert "tok/s" in summary
    assert "ended by" in summary


@pytest.mark.engine
def test_json_has_the_names_that_scripts_rely_on() -> None:
    run = ask("-p", "x", "-n", "40", "--json")
    assert run.stderr == ""
    assert run.stdout.count("\n") == 1
    document = run.document
    for path, names in KEYS.items():
        assert list(document[path] if path else document) == names.split()
    assert document["completion_tokens"] == len(document["tokens"]) == 40
    assert document["finish_reason"] == "length"
    assert document["prediction"] is None
    speculation = document["speculation"]
    assert set(speculation["by_source"]) <= {"lookup", "model"}
    for source in speculation["by_source"].values():
        assert list(source) == ["drafted", "accepted", "draft_s", "by_position"]
    assert speculation["tokens_per_pass"] == pytest.approx(40 / speculation["passes"])
    timings = document["timings"]
    assert timings["tpot_ms"] == pytest.approx(1000 / timings["decode_tps"])
    assert document["config"]["model"] == str(tiny())


@pytest.mark.engine
def test_what_is_undefined_is_null() -> None:
    """One token has no speed: a script that divides by 0 or plots it should notice."""
    timings = ask("-p", "x", "-n", "1", "--json").document["timings"]
    assert (timings["decode_tps"], timings["tpot_ms"]) == (None, None)
    nothing = ask("-p", "x", "-n", "0", "--json").document
    assert (nothing["text"], nothing["tokens"], nothing["finish_reason"]) == ("", [], "length")
    assert nothing["speculation"]["tokens_per_pass"] is None
    assert nothing["timings"]["ttft_s"] is None


@pytest.mark.engine
def test_no_tokens_are_an_empty_line() -> None:
    assert ask("-p", "x", "-n", "0").stdout == "\n"


@pytest.mark.engine
def test_the_prompt_can_come_from_a_file_or_a_pipe(tmp_path: Path) -> None:
    text = "Größe: 3 µm\n"
    file = tmp_path / "prompt.txt"
    file.write_text(text)
    given = ask("-p", text, "-n", "20").stdout
    assert ask("-f", file, "-n", "20").stdout == given
    arguments = ("generate", tiny(), *ANSWER, "-f", "-", "-n", "20")
    assert localspec(*arguments, stdin=text.encode()).stdout == given
    assert localspec("generate", tiny(), *ANSWER, "-n", "20", stdin=text.encode()).stdout == given


@pytest.mark.engine
@pytest.mark.parametrize(
    ("options", "whole"), [([], "A log.\n\nWhy?"), (["--raw"], "A log.\nWhy?")]
)
def test_what_is_piped_stands_before_the_prompt(options: list[str], whole: str) -> None:
    """As in other programs, and the next question on the same text finds it read."""
    given = ask("-p", whole, "-n", "20", *options).stdout
    arguments = ("generate", tiny(), *ANSWER, "-p", "Why?", "-n", "20", *options)
    run = localspec(*arguments, stdin=b"A log.\n")
    assert run.stdout == given
    assert "7 characters of standard input stand before the prompt" in run.stderr


@pytest.mark.engine
def test_a_program_that_leaves_its_input_open_gets_its_answer() -> None:
    """As editors and Node do, with a socket; a pipe is waited for, and that is said."""
    arguments = [LOCALSPEC, "generate", tiny(), *ANSWER, "-p", "Why?", "-n", "1"]
    mine, theirs = socket.socketpair()
    with mine, theirs:
        done = subprocess.run(arguments, stdin=theirs, capture_output=True, timeout=60, check=True)
    assert b"standard input" not in done.stderr
    process = start_with_input(*arguments[1:])
    assert process.stderr
    assert b"waiting for standard input" in process.stderr.readline()
    run = finish(process)
    assert run.code == 0, run.stderr


@pytest.mark.engine
def test_stop_ends_before_its_text() -> None:
    plain = ask(*QUESTION, "-n", "60", "--json", model=smollm2()).document["text"]
    word = plain.split()[5]
    run = ask(*QUESTION, "-n", "60", "--json", "--stop", word, model=smollm2())
    assert run.document["text"] == plain[: plain.index(word)]
    assert run.document["finish_reason"] == "stop"


@pytest.mark.engine
def test_ignore_eos_goes_on() -> None:
    options = ("-p", "Say hi", "-n", "100", "--json")
    ended = ask(*options, model=smollm2()).document
    assert ended["finish_reason"] == "stop"
    more = ask(*options, "--ignore-eos", model=smollm2()).document
    assert (more["finish_reason"], more["completion_tokens"]) == ("length", 100)
    assert more["tokens"][: len(ended["tokens"])] == ended["tokens"]


@pytest.mark.engine
def test_raw_leaves_the_chat_template_out_and_system_goes_into_it() -> None:
    options = ("-p", "Hello", "-n", "1", "--json")
    raw = ask(*options, "--raw", model=smollm2()).document
    assert raw["prompt_tokens"] == 1
    default = ask(*options, model=smollm2()).document["prompt_tokens"]
    system = ask(*options, "--system", "word " * 100, model=smollm2()).document["prompt_tokens"]
    assert system > default + 50


@pytest.mark.engine
def test_a_seed_repeats_the_answer_and_speculation_does_not_change_it() -> None:
    options = ("-p", "to be or not to be", "-n", "200", "--temp", "0.7", "--json")
    plain = ask(*options, "--seed", "7", "--spec", "none").document
    guessed = ask(*options, "--seed", "7", "--spec", "lookup").document
    assert guessed["speculation"]["drafted"] > 0
    assert guessed["tokens"] == plain["tokens"]
    assert ask(*options, "--seed", "7", "--spec", "lookup").document["text"] == plain["text"]
    assert ask(*options, "--seed", "8").document["tokens"] != plain["tokens"]


@pytest.mark.engine
def test_a_drawn_seed_is_shown_and_can_be_given_again() -> None:
    run = ask("-p", "x", "-n", "30", "--temp", "1")
    seed = run.stderr.split("seed ")[1].split()[0]
    assert ask("-p", "x", "-n", "30", "--temp", "1", "--seed", seed).stdout == run.stdout


@pytest.mark.engine
def test_a_model_that_cannot_take_back_tokens_says_so_and_answers() -> None:
    run = ask("-p", "x", "-n", "20", "--spec", "lookup", "--json", model=mamba())
    assert run.document["completion_tokens"] == 20
    assert run.document["config"]["spec"] == "none"
    (line,) = run.stderr.splitlines()
    assert line.startswith("localspec: speculation is off: mamba.gguf cannot roll back its state")


@pytest.mark.engine
def test_an_answer_ends_where_the_context_does() -> None:
    document = ask("-p", "x", "--ctx", "32", "--ignore-eos", "--json").document
    assert document["finish_reason"] == "context"
    assert document["prompt_tokens"] + document["completion_tokens"] == 33


@pytest.mark.engine
def test_output_that_cannot_show_a_character_shows_another() -> None:
    run = ask("-p", "x", "-n", "40", PYTHONIOENCODING="ascii")
    assert "?" in run.stdout
    assert ask("-p", "x", "-n", "40", "--json", PYTHONIOENCODING="ascii").document["text"]


@pytest.mark.engine
def test_quantize_makes_a_draft_that_its_model_accepts(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    run = localspec("quantize", tiny(), "--to", "q8_0", "-o", "draft.gguf", cwd=here)
    assert (run.code, run.stderr) == (0, "")
    assert run.stdout.startswith("draft.gguf  ")
    assert [path.name for path in here.iterdir()] == ["draft.gguf"]
    draft = ("--spec", "draft", "--draft", here / "draft.gguf")
    document = ask("-p", "x", "-n", "60", *draft, "--json").document
    assert document["config"]["spec"] == "draft"
    assert document["speculation"]["accepted"] > 20
    assert document["tokens"] == ask("-p", "x", "-n", "60", "--json").document["tokens"]


@pytest.mark.engine
def test_quantize_writes_beside_a_path_and_here_for_a_name(tmp_path: Path) -> None:
    """A named model lies in a package or in the hub's cache, where nobody looks for it."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    model = tmp_path / "there" / "model.gguf"
    model.write_bytes(tiny().read_bytes())
    run = localspec("quantize", model, "--to", "Q8_0", cwd=tmp_path / "here")
    assert run.code == 0, run.stderr
    assert (tmp_path / "there" / "model.Q8_0.gguf").exists()
    run = localspec("quantize", "starter", "--to", "Q8_0", cwd=tmp_path / "here")
    assert run.code == 0, run.stderr
    assert [path.name for path in (tmp_path / "here").iterdir()] == [f"{smollm2().stem}.Q8_0.gguf"]


@pytest.mark.engine
def test_doctor_finds_this_build_sound() -> None:
    run = localspec("doctor", "--json")
    assert (run.code, run.stderr) == (0, "")
    findings = run.document
    assert list(findings) == [
        "localspec", "machine", "engine", "devices", "graphics", "probe", "prediction", "self_test",
        "starter",
    ]  # fmt: skip
    assert findings["prediction"]["source"]
    assert findings["prediction"]["corrected_by"]
    assert findings["devices"]["list"][-1]["backend"] == "cpu"
    assert findings["self_test"]["sound"]
    assert findings["starter"]["path"] == str(smollm2())


@pytest.mark.engine
def test_doctor_fits_into_a_narrow_plain_terminal() -> None:
    """Nothing is cut off: people copy the paths."""
    run = localspec("doctor", COLUMNS="60", NO_COLOR="1", TERM="dumb")
    assert run.code == 0
    assert max(len(line) for line in run.stdout.splitlines()) <= 60
    assert "\x1b" not in run.stdout
    assert "…" not in run.stdout
    assert smollm2().name in "".join(run.stdout.split())


def shim(folder: Path, code: str, name: str) -> dict[str, str]:
    """An environment in which `name` is this code, found before anything that is installed."""
    path = folder / "shim" / name
    path.parent.mkdir(parents=True)
    path.write_text(code)
    return {"PYTHONPATH": str(folder / "shim")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("raise ImportError('no libllama')", "is not installed"),
        ("raise RuntimeError('libllama.so is broken')", "libllama.so is broken"),
    ],
)
def test_without_an_engine_there_is_one_sentence(tmp_path: Path, code: str, word: str) -> None:
    environment = shim(tmp_path, code, "llama_cpp/llama_cpp.py")
    (tmp_path / "shim" / "llama_cpp" / "__init__.py").touch()
    quantize = ("quantize", tiny(), "--to", "Q8_0", "-o", tmp_path / "x.gguf")
    for arguments in (("generate", tiny(), "-p", "x"), quantize):
        run = localspec(*arguments, **environment)
        assert (run.code, run.stdout) == (1, "")
        assert run.stderr.startswith("localspec: the engine")
        assert run.stderr.count("\n") == 1
        assert word in run.stderr
        assert run.stderr.count("scripts/setup") == 1
    assert not (tmp_path / "x.gguf").exists()
    run = localspec("doctor", "--json", **environment)
    assert run.code == 1
    assert word in run.document["engine"]["error"]


def broken_build(folder: Path, condition: str) -> dict[str, str]:
    """An environment in which the self-test's child dies if `condition`."""
    code = (
        "import os, signal, sys\n"
        f"if sys.orig_argv[-1].startswith({SELF_TEST!r}) and ({condition}):\n"
        "    os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    return shim(folder, code, "sitecustomize.py")


@pytest.mark.engine
@pytest.mark.usefixtures("untested_home")
def test_a_build_that_crashes_is_worked_around_and_explained(tmp_path: Path) -> None:
    """GCC 12 on a processor with AMX makes such a build; without this, the session would die."""
    environment = broken_build(tmp_path, "not sys.orig_argv[-1].endswith(':plain')")
    question = ("-p", "x", "-n", "5", "--json")
    first = ask(*question, **environment)
    (line,) = first.stderr.splitlines()
    assert "SIGSEGV" in line
    assert "localspec doctor" in line
    assert first.document["config"]["extra_buffers"] is False
    second = ask(*question, **environment)
    assert second.stderr == ""
    assert second.document["config"]["extra_buffers"] is False
    found = localspec("doctor", "--json", **environment)
    assert found.code == 0
    assert found.document["self_test"]["sound"] is False
    assert "SIGSEGV" in found.document["self_test"]["problem"]
    assert "scripts/setup --rebuild" in found.document["self_test"]["advice"]


@pytest.mark.engine
@pytest.mark.usefixtures("untested_home")
def test_a_build_that_always_crashes_is_refused(tmp_path: Path) -> None:
    environment = broken_build(tmp_path, "True")
    for _ in range(2):
        run = localspec("generate", tiny(), "-p", "x", **environment)
        assert (run.code, run.stdout) == (1, "")
        (line,) = run.stderr.splitlines()
        assert "SIGSEGV" in line
        assert "scripts/setup --rebuild" in line
    run = localspec("doctor", "--json", **environment)
    assert run.code == 1
    assert "SIGSEGV" in run.document["self_test"]["error"]


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        (["--ctx", "256"], 256),
        (["--temp", "1"], 1.0),
        (["--spec", "lookup"], "lookup"),
        (["--prompt", "7"], "7"),
        (["--no-repack"], False),
        (["--stop", "a", "--stop", "b"], ["a", "b"]),
        (["--gpu-layers", "all"], None),
    ],
)
def test_values_are_what_typer_reads(typed: list[str], value: Any) -> None:
    """Whatever is taken without Typer's reader, a default too, is what the reader makes of it."""
    quick = values_of_generate(typed)
    slow = values_of_generate(typed, is_quick=False)
    assert quick == slow
    assert {name: type(each) for name, each in quick.items()} == {
        name: type(each) for name, each in slow.items()
    }
    name = typed[0].removeprefix("--").removeprefix("no-").replace("-", "_")
    assert value is None or quick[name] == value


def values_of_generate(typed: list[str], *, is_quick: bool = True) -> dict[str, Any]:
    command = get_command(app(["generate"])).commands["generate"]  # type: ignore[attr-defined]
    if is_quick:
        read_quickly(command)
    return command.make_context("generate", [*typed]).params


def test_a_prompt_needs_no_pydantic() -> None:
    """To import it takes a tenth of a second before the first token."""
    line = "['generate', '/nowhere.gguf', '-p', 'hi', '-n', '1', '--temp', '0']"
    modules = imported(f"from localspec.cli.main import run; run({line})")
    assert "typer" in modules
    assert "pydantic" not in modules
