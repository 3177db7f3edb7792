"""Runs one study in an environment that is set up: python scripts/research NAME [OPTIONS]."""

import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import typer

from localspec.errors import LocalspecError

HERE = Path(__file__).resolve().parent


def main(name: str, *options: str) -> int:
    """The exit code. Errors are a sentence, Ctrl-C is quiet."""
    # Before NumPy: on the fit's small matrices its threads cost more than they give.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Beside the studies, their models are those of the tests.
    sys.path[:1] = [str(HERE.parent), str(HERE.parent.parent / "tests")]
    from research.studies import STUDIES  # noqa: PLC0415 - found from here on

    try:
        return _run(name, import_module(f"research.{STUDIES[name]}").main, options)
    except LocalspecError as error:
        sys.stderr.write(f"{name}: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _run(name: str, study: Callable[..., None], options: tuple[str, ...]) -> int:
    app = typer.Typer(add_completion=False)
    app.command()(study)
    command = typer.main.get_command(app)
    try:
        with command.make_context(f"scripts/research/run {name}", list(options)) as context:
            command.invoke(context)
    except typer.Exit as leave:
        return leave.exit_code
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        sys.stderr.write(f"{name}: {error.format_message()}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
