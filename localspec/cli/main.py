"""The commands of `localspec`, and one run of one of them.

Here alone errors become sentences and exit codes: 0 done, 1 failed or interrupted, 2 wrong usage.
LOCALSPEC_DEBUG=1 shows tracebacks. `invoke` imports only the modules of the command that it runs.
"""

import errno
import io
import os
import re
import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import typer

from localspec import __version__
from localspec.cli.options import read_quickly
from localspec.display import note
from localspec.errors import LocalspecError, UserError
from localspec.paths import NoFolderError


def run(arguments: list[str] | None = None) -> int:
    """Run one command; its exit code. Without arguments, the help."""
    try:
        _prepare_streams()

        code = invoke((sys.argv[1:] if arguments is None else arguments) or ["--help"])
        sys.stdout.flush()
    except LocalspecError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", 1)
    except BrokenPipeError:
        _abandon_output()
        return _fail("the reader of the output went away", 1)
    except OSError as error:
        return _fail_of_system(error)
    except Exception as error:  # noqa: BLE001 - a bug is a sentence too
        if _is_interrupt(error):
            return _fail("interrupted", 1)
        return _fail(f"a bug in localspec ({error!r}): report it, with LOCALSPEC_DEBUG=1", 1)
    return code


def _is_interrupt(error: BaseException) -> bool:
    """Whether Ctrl-C caused it; Python 3.11 wraps one in a RuntimeError while it makes a class."""
    cause = error.__cause__
    return isinstance(error, KeyboardInterrupt) or (cause is not None and _is_interrupt(cause))


def _prepare_streams() -> None:
    """Replace streams that the caller closed, so that no file gets their numbers."""
    is_lost = getattr(sys, "stdout", None) is None
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name, None) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - for good
    if is_lost:
        raise LocalspecError("standard output is closed: send it to a file or to /dev/null")
    if isinstance(sys.stdin, io.TextIOWrapper):
        if sys.stdin.isatty():
            sys.stdin.reconfigure(errors="surrogateescape")
        else:
            # A mark before the text is none of it, and only a new line ends a line.
            sys.stdin.reconfigure(encoding="utf-8-sig", errors="surrogateescape", newline="\n")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _abandon_output() -> None:
    """Keep Python from flushing stdout again at exit, which would fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


_NEXT_STEPS = dict.fromkeys(
    (errno.EACCES, errno.EPERM, errno.EROFS), "; make its folder writable for you, or ask its owner"
) | {errno.ENOSPC: "; make room there", errno.EDQUOT: "; make room there"}


def _fail_of_system(error: OSError) -> int:
    reason = error.strerror or str(error)
    if error.filename is not None:
        step = _NEXT_STEPS.get(error.errno or 0, "")
        if isinstance(error, NoFolderError):
            step = "; set LOCALSPEC_HOME to a folder that you may write"
        return _fail(f"{os.fsdecode(error.filename)} cannot be used: {reason}{step}", 1)
    _abandon_output()
    return _fail(f"reading or writing failed: {reason}", 1)


def _fail(sentence: str, code: int) -> int:
    if os.environ.get("LOCALSPEC_DEBUG") == "1":
        raise  # noqa: PLE0704 - called from an except clause
    try:
        sys.stderr.write(f"localspec: {note(sentence)}\n")
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    return code


_NAME = "localspec"
COMMANDS = {
    "chat": "Talk to a model.",
    "generate": "Print one reply, for scripts.",
    "serve": "Serve a model to many users at once, over HTTP as OpenAI's clients speak it.",
    "worker": "Lend this machine to another one, which shares a model's layers out.",
    "predict": "Predict a model's speed on a machine, before the download.",
    "recommend": "Say which models to run on a machine, best first.",
    "bench": "Measure speeds, beside the predictions.",
    "report": "Show stored results as tables and pictures.",
    "compare": "Compare two results: the second's speed by case, regressions first.",
    "tune": "Find the fastest settings of a model on this machine, and keep them.",
    "quality": "Measure the loss of quality by weight and cache types, beside speed and memory.",
    "quantize": "Write a model in another weight type; also makes a draft of a model itself.",
    "export": "Print a model's settings as a command or file for another engine.",
    "pull": "Get a model and its draft, in a quantization that fits this machine.",
    "verify": "Compare the SHA-256 of pulled files with the hub's; exit code 1 if one is damaged.",
    "remove": "Remove models that localspec pulled; models of other programs stay.",
    "doctor": "Show what this machine and this engine build can do.",
    "list": "List the models on this machine, by the names that commands take.",
}
"""Each command's first sentence, so that an overview needs none of their modules."""
_MODULES = {
    "compare": "report", "export": "tune", "quantize": "quality", "remove": "pull",
    "verify": "pull",
}  # fmt: skip
"""Of commands that share a module; the others have one of their own name."""
_FUNCTIONS = {"list": "list_models"}
_OF_LLAMA_CPP = ("-hf", "-hfr", "--hf-repo")
"""Its options before a model's name, which stands alone here."""


def app(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """The command line. Of commands that are not in `names` it knows the first sentence only."""
    made = typer.Typer(
        help="Run language models at the full speed of this machine, and see where the time goes.",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback()(_options)
    for name, sentence in COMMANDS.items():
        if name in names:
            module = import_module(f"localspec.cli.{_MODULES.get(name, name)}")
            made.command(name)(getattr(module, _FUNCTIONS.get(name, name)))
        else:
            made.command(name, short_help=sentence)(_not_imported)
    return made


def _not_imported() -> None:
    raise AssertionError("a command that runs is imported")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"localspec {__version__}")
        raise typer.Exit


def _options(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Show the version."
    ),
) -> None:
    pass


def invoke(arguments: list[str]) -> int:
    """Parse and run; the exit code. Raises UserError for wrong usage, and any error of the command.

    Typer's own `main` would turn Ctrl-C and closed pipes into exit codes without a word.
    """
    if f"_{_NAME.upper()}_COMPLETE" in os.environ:
        app()(arguments, prog_name=_NAME)
    arguments = [argument for argument in arguments if argument not in _OF_LLAMA_CPP]
    named = [argument for argument in arguments if not argument.startswith("-")]
    try:
        made = typer.main.get_command(app(named[:1]))
        for command in (made, *getattr(made, "commands", {}).values()):
            read_quickly(command)
        with made.make_context(_NAME, arguments) as context:
            context.command.invoke(context)
    except typer.Exit as leave:
        return leave.exit_code
    except Exception as error:
        if hasattr(error, "format_message"):
            raise _usage_error(error, arguments) from error
        raise
    return 0


def _usage_error(error: Any, arguments: list[str]) -> UserError:
    """Click's lines as one sentence, and the value that is wrong in our words."""
    message = _value_error(error, arguments) or error.format_message().strip().rstrip(".")
    message = re.sub(r"\. Choose from:\s+", ": one of ", message)
    message = re.sub(r",\s+", ", ", message)
    path = error.ctx.command_path if error.ctx else _NAME
    link = "" if message.endswith("?") else ";"
    return UserError(f"{message[:1].lower()}{message[1:]}{link} see `{path} --help`")


_WANTED = {
    "int_parsing": "a whole number",
    "float_parsing": "a number",
    "greater_than_equal": "at least {ge:g}",
    "less_than_equal": "at most {le:g}",
    "value_error": "",
}
"""Pydantic's kinds of errors, which newer Typers tell in its words, and what each wants."""


def _value_error(error: Any, arguments: list[str]) -> str | None:
    """The sentence for a value that Pydantic refused; None for any other error. An option with
    several long names is named as it was given."""
    refused, parameter = error.__cause__, getattr(error, "param", None)
    if not hasattr(refused, "errors") or parameter is None:
        return None
    first = refused.errors()[0]
    wanted, context = _WANTED.get(first["type"], "valid"), first.get("ctx", {})
    given = {argument.partition("=")[0] for argument in arguments if argument.startswith("--")}
    name = next((name for name in parameter.opts if name in given), parameter.opts[0])
    if not wanted:
        return f"{name} {str(context['error']).rstrip('.')}"
    return f"{name} {first['input']!r} is not {wanted.format(**context)}"
