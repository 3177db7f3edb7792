"""`localspec quantize`: another weight type of a model."""

from pathlib import Path
from typing import Annotated

import typer

from localspec.cli.notify import progress

MAX_THREADS = 512
"""GGML_MAX_N_THREADS of ggml, which does not survive more."""


def quantize(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model to convert.")],
    to: Annotated[str, typer.Option("--to", metavar="TYPE", help="F16, Q8_0, Q4_K_M, Q4_0, ...")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Default: beside the model's path, else here; named after the type.",
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, max=MAX_THREADS, help="Default: physical cores.")
    ] = None,
) -> None:
    """Write a model in another weight type; also makes a draft of a model itself.

    localspec quantize model-f16.gguf --to Q4_0 -o draft.gguf
    """
    from localspec.engine.quantize import quantize as run
    from localspec.hardware.detect import usable_cores
    from localspec.registry.resolve import resolve

    source = resolve(model)
    folder = source.parent if source == Path(model).expanduser() else Path()
    target = output or folder / f"{source.stem}.{to.upper()}.gguf"
    with progress(f"writing {target.name}") as on_progress:
        size = run(source, target, to, threads or usable_cores(), on_progress)
    typer.echo(f"{target}  {size / 1e6:,.1f} MB")
