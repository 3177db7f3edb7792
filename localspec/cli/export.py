"""`localspec export`: the settings of a model for another engine."""

from dataclasses import asdict, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from localspec.cli.flags import EngineFlags
from localspec.cli.notify import notify
from localspec.cli.options import JsonFlag, ModelArgument, command
from localspec.cli.output import print_json

if TYPE_CHECKING:
    from localspec.engine.base import EngineConfig
    from localspec.settings import Settings


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


@command
def export(
    engine: EngineFlags,
    to: Annotated[Target, typer.Option("--to", help="The engine that will run it.")],
    model: ModelArgument = None,
    as_json: JsonFlag = False,
) -> None:
    """Print a model's settings as a command or file for another engine.

    localspec export model.gguf --to llama-server

    localspec export model.gguf --to ollama > Modelfile
    """
    config = engine.session_config(model)
    from localspec.export import TARGETS
    from localspec.session.config import SessionConfig
    from localspec.session.loading import plan_engines

    plan, draft = plan_engines(config), config.draft
    chosen = SessionConfig(config.model.resolve(), _decided(config.settings, plan.target))
    if draft:
        chosen = chosen.with_draft(draft.resolve())
    exported = TARGETS[to](chosen)
    if as_json:
        print_json({"to": to.value, **asdict(exported)})
        return
    typer.echo(exported.text, nl=False)
    for clause in exported.cannot:
        notify(f"{to.value} cannot {clause}")
    for note in exported.notes:
        notify(note)


def _decided(settings: "Settings", target: "EngineConfig") -> "Settings":
    """The settings with the values that localspec chose for open ones."""
    engine = target.settings
    return replace(settings, ctx=engine.ctx, threads=engine.threads, flash_attn=engine.flash_attn)
