"""`localspec export`: the settings of a model for another engine."""

from dataclasses import asdict, replace
from typing import Literal

import typer

from localspec.cli.flags import EngineFlags
from localspec.cli.notify import notify
from localspec.cli.options import JsonFlag, ModelArgument, command
from localspec.cli.output import fields_of, print_json
from localspec.display import echo

Target = Literal[
    "llama-server", "ollama", "lm-studio", "llama-cpp-python", "llama-swap", "litellm", "vllm",
    "sglang", "tgi", "tensorrt-llm", "transformers",
]  # fmt: skip


@command
def export(
    engine: EngineFlags,
    to: Target = typer.Option(..., "--to", help="The engine that will run it."),
    model: ModelArgument = None,
    as_json: JsonFlag = False,
) -> None:
    """Print a model's settings as a command or file for another engine.

    localspec export model.gguf --to llama-server

    localspec export model.gguf --to ollama > Modelfile
    """
    config = engine.session_config(model)
    from localspec.export import TARGETS
    from localspec.session.asking import SessionConfig
    from localspec.session.loading import beyond_training, plan_engines

    # What localspec chose for open settings.
    plan = plan_engines(config)
    decided = fields_of(plan.target.settings, "ctx", "threads", "flash_attn", "shares")
    chosen = SessionConfig(config.model.resolve(), replace(config.settings, **decided))
    if config.draft:
        chosen = chosen.with_draft(config.draft.resolve())
    exported = TARGETS[to](chosen)
    if note := beyond_training(plan.facts, plan.target.n_ctx):
        exported = replace(exported, notes=(*exported.notes, note))
    if as_json:
        print_json({"to": to, **asdict(exported)})
        return
    echo(exported.text, end="")
    for clause in exported.cannot:
        notify(f"{to} cannot {clause}")
    for note in exported.notes:
        notify(note)
