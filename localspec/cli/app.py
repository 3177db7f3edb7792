"""`localspec`: its commands, and one run of one of them."""

import os
from typing import Annotated, Any

import typer

from localspec import __version__
from localspec.cli.bench import bench
from localspec.cli.chat import chat
from localspec.cli.compare import compare
from localspec.cli.doctor import doctor
from localspec.cli.export import export
from localspec.cli.generate import generate
from localspec.cli.list import list_models
from localspec.cli.predict import predict
from localspec.cli.pull import pull
from localspec.cli.quality import quality
from localspec.cli.quantize import quantize
from localspec.cli.remove import remove
from localspec.cli.report import report
from localspec.cli.tune import tune
from localspec.cli.verify import verify
from localspec.errors import UserError

_NAME = "localspec"

app = typer.Typer(
    help="Run language models at the speed of this machine, and see where the rest goes.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    chat,
    generate,
    predict,
    bench,
    report,
    compare,
    tune,
    quality,
    quantize,
    export,
    pull,
    verify,
    remove,
    doctor,
):
    app.command()(command)
app.command("list")(list_models)


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


def invoke(arguments: list[str]) -> int:
    """Parse and run; the exit code. Raises UserError for wrong usage, and what the command raises.

    Typer's own `main` would turn Ctrl-C and closed pipes into exit codes without a word.
    """
    if f"_{_NAME.upper()}_COMPLETE" in os.environ:
        app(arguments, prog_name=_NAME)
    try:
        with typer.main.get_command(app).make_context(_NAME, arguments) as context:
            context.command.invoke(context)
    except typer.Exit as leave:
        return leave.exit_code
    except Exception as error:
        if hasattr(error, "format_message"):
            raise _usage_error(error) from error
        raise
    return 0


def _usage_error(error: Any) -> UserError:
    """Click's three lines as one sentence."""
    # Newer Typers put pydantic's words for a ValueError before ours.
    message = error.format_message().strip().rstrip(".").replace(" Value error, ", " ", 1)
    path = error.ctx.command_path if error.ctx else _NAME
    return UserError(f"{message[:1].lower()}{message[1:]}; see `{path} --help`")
