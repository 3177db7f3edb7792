"""`localspec bench --same-answer`: drafts change no greedy answer."""

from dataclasses import replace
from typing import Any

import typer

from localspec.cli.bench_options import SweepFlags, sweep_of
from localspec.cli.notify import notify
from localspec.errors import UserError

EVERY_WAY: dict[str, Any] = {"spec": "lookup,draft,auto"}


def same_answer(flags: SweepFlags, arguments: list[str], *, as_json: bool) -> None:
    """Compare and show; exit code 1 where an answer differs by more than rounding explains.

    Without --spec every way is taken that the models here allow.
    """
    import json

    from localspec.bench.prompts import read_prompts
    from localspec.bench.same_answer import TEXTS, by_plain, compare_answers

    is_asked = "spec" in flags.swept
    sweep = sweep_of(flags if is_asked else replace(flags, **EVERY_WAY), arguments)
    asked = sweep.prompts and read_prompts(sweep.prompts, sweep.per_category)
    texts = [prompt.text for prompt in asked] if asked else TEXTS
    configs = [case.config for case in sweep.cases()]
    if not is_asked:
        configs = [config for config in configs if config.settings.spec != "draft" or config.draft]
    groups = by_plain(dict.fromkeys(configs))
    if not groups:
        raise UserError("--same-answer compares drafts with plain decoding: name some with --spec")
    found = []
    for plain, drafted in groups.items():
        found.append(compare_answers(plain, drafted, texts, sweep.n_gen[0], notify))
        if not as_json:
            typer.echo(found[-1].text)
    if as_json:
        typer.echo(json.dumps({"results": [one.to_json() for one in found]}))
    if any(one.n_unexplained for one in found):
        raise typer.Exit(1)
