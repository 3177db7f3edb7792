"""`localspec export`: the settings of a model for another engine."""

from dataclasses import replace
from enum import StrEnum
from typing import Annotated

import typer

from localspec.cli.flatten import flatten
from localspec.cli.notify import notify
from localspec.cli.options import EngineFlags, ModelArgument


class Target(StrEnum):
    """Names that `--to` takes."""

    LLAMA_SERVER = "llama-server"
    OLLAMA = "ollama"
    LM_STUDIO = "lm-studio"
    LLAMA_CPP_PYTHON = "llama-cpp-python"
    VLLM = "vllm"
    TGI = "tgi"
    TENSORRT_LLM = "tensorrt-llm"
    TRANSFORMERS = "transformers"


@flatten
def export(
    engine: EngineFlags,
    to: Annotated[Target, typer.Option("--to", help="The engine that is to run it.")],
    model: ModelArgument = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """The settings of a model, tuned or given, as a command or file for another engine.

    localspec export model.gguf --to llama-server

    localspec export model.gguf --to ollama > Modelfile
    """
    config = engine.session_config(model)
    from localspec.export import TARGETS
    from localspec.session.loading import plan_engines

    plan = plan_engines(config)
    chosen = replace(
        config,
        model=config.model.resolve(),
        draft=config.draft and config.draft.resolve(),
        n_ctx=plan.target.n_ctx,
        n_threads=plan.target.n_threads,
        flash_attn=plan.target.flash_attn,
    )
    exported = TARGETS[to](chosen)
    if as_json:
        import json

        document = {
            "to": to.value,
            "text": exported.text,
            "cannot": exported.cannot,
            "notes": exported.notes,
        }
        typer.echo(json.dumps(document))
        return
    typer.echo(exported.text, nl=False)
    for clause in exported.cannot:
        notify(f"{to.value} cannot {clause}")
    for note in exported.notes:
        notify(note)
