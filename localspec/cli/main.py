"""`localspec`: the commands, and the one place where errors become sentences and exit codes.

0 done, 1 failed or interrupted, 2 wrong usage. A traceback only with LOCALSPEC_DEBUG=1.
"""

import os
import sys
from typing import Annotated, Any

import typer

from localspec import __version__
from localspec.cli.chat import chat
from localspec.cli.doctor import doctor
from localspec.cli.generate import generate
from localspec.cli.quantize import quantize
from localspec.errors import LocalspecError

app = typer.Typer(
    help="Run language models on this machine at the speed of its memory, and see where the rest goes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (chat, generate, quantize, doctor):
    app.command()(command)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"localspec {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line and leave with its exit code."""
    sys.exit(run())


def run(arguments: list[str] | None = None) -> int:
    """Run one command; its exit code."""
    try:
        code = app(arguments, standalone_mode=False)
        sys.stdout.flush()
    except LocalspecError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", 1)
    except BrokenPipeError:
        # Python would flush stdout again at exit, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _fail("the reader of the output went away", 1)
    except OSError as error:
        return _fail(f"{error.filename or 'the system'}: {error.strerror or error}", 1)
    except Exception as error:  # noqa: BLE001 - click's own errors and ours
        return _show_usage_error(error)
    return code if isinstance(code, int) else 0


def _show_usage_error(error: Any) -> int:
    """Click's errors know how to show themselves; anything else is a bug, and says so."""
    if hasattr(error, "show") and hasattr(error, "exit_code"):
        error.show()
        return error.exit_code
    return _fail(f"a bug in localspec ({error!r}): please report it, with LOCALSPEC_DEBUG=1", 1)


def _fail(sentence: str, code: int) -> int:
    if os.environ.get("LOCALSPEC_DEBUG") == "1" and sys.exc_info()[0] is not None:
        raise  # noqa: PLE0704 - called from an except clause
    typer.echo(f"localspec: {sentence}", err=True)
    return code
