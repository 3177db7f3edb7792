"""`localspec predict`: what a machine should do with a model, before it is downloaded."""

from pathlib import Path
from typing import Annotated

import typer

from localspec.cli.flatten import flatten
from localspec.cli.forecast_options import MachineFlags, QuestionFlags
from localspec.cli.options import ModelArgument
from localspec.cli.talk import talk
from localspec.errors import UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from localspec.model.facts import ModelFacts

PICTURES = (".png", ".svg", ".pdf")


@flatten
def predict(
    machine: MachineFlags,
    asked: QuestionFlags,
    model: ModelArgument = None,
    draft: Annotated[
        str | None, typer.Option(metavar="MODEL", help="A draft model, which need not be here.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a picture of what drafts gain (.png, .svg)."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """What a machine should do with a model, before it is downloaded.

    localspec predict hf:owner/repo/model.gguf --device "RTX 4090"

    localspec predict model.gguf --draft small.gguf --accept .5,.7,.9 --batch 1,8 --depth 0,4096
    """
    asked.check()
    if plot:
        _check_plot(plot)
    from localspec.predict.quants import variants_of
    from localspec.session.forecast import facts_of, forecast
    from localspec.session.machine import predicted_machine

    facts, draft_facts = facts_of(model), facts_of(draft) if draft else None
    if draft_facts:
        _check_pair(facts, draft_facts)
    question = asked.question(facts)
    models = [facts, draft_facts] if draft_facts else [facts]
    chosen = predicted_machine(
        machine.choice(),
        models,
        question.caches,
        question.n_ctx,
        talk,
        variants_of(facts) if asked.quants else (),
    )
    answer = forecast(facts, draft_facts, chosen, question)
    if plot:
        from localspec.cli.forecast_plot import write_plot

        write_plot(answer, plot)
    if as_json:
        import json

        from localspec.cli.forecast_json import document

        typer.echo(json.dumps(document(answer), allow_nan=False))
    else:
        from localspec.cli.forecast_tables import show

        show(answer)


def _check_pair(facts: "ModelFacts", draft: "ModelFacts") -> None:
    difference = facts.tokenizer.difference(draft.tokenizer)
    if difference:
        raise UserError(
            f"{draft.path} cannot draft for {facts.path}: {difference}; use a smaller model of the"
            " same family"
        )


def _check_plot(path: Path) -> None:
    from importlib.util import find_spec

    if path.suffix.lower() not in PICTURES:
        raise UserError(f"--plot {path} is no picture that can be written: end it in .png or .svg")
    if find_spec("matplotlib") is None:
        raise UserError("--plot needs matplotlib: `pip install 'localspec[plot]'`")
