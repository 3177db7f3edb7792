"""`localspec bench`: measured speeds beside predicted ones."""

from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from localspec.cli.bench_options import RunFlags, SweepFlags, sweep_of
from localspec.cli.options import command
from localspec.cli.output import bar, make_folder, notify, print_json
from localspec.display import echo
from localspec.errors import LocalspecError, UserError
from localspec.format import count
from localspec.notify import silent

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

    from localspec.bench.store import ResultsHeader, Writer
    from localspec.session.session_config import SessionConfig


@command
def bench(
    flags: SweepFlags,
    run: RunFlags,
    arguments: list[str] | None = typer.Argument(
        None, metavar="[MODEL]...", help="Models to measure. Default: the starter."
    ),
) -> None:
    """Measure speeds, beside the predictions.

    localspec bench --quick

    localspec bench a.gguf b.gguf -p 512 -n 128 -d 0,4096 --kv f16,q8_0 -t 4,8

    localspec bench --spec none,lookup,auto --prompts questions.jsonl

    localspec bench --same-answer
    """
    from localspec.bench.store import Writer, results_folder

    if run.same_answer:
        _same_answer(flags, arguments or [], as_json=run.as_json)
        return
    folder = make_folder(run.output or results_folder(), "-o")
    goes_on = run.resume and not arguments and flags == SweepFlags()
    header = None if goes_on else _header(flags, run, arguments or [])
    if run.dry_run:
        _show_plan(header or _unfinished(folder)[1])
        return
    if run.resume:
        path, kept = _unfinished(folder)
        if header and header.cases != kept.cases:
            raise UserError(f"{path.name} has other cases: leave the options out to go on")
        header = None
    else:
        assert header
        if not header.cases:
            raise UserError(next((why for _, why in header.skipped), "there is nothing to measure"))
        path, kept = _new_file(folder), header
    with Writer.open(path, header) as writer:
        _run(writer, kept, run)
    _show(path, run)


def _header(flags: SweepFlags, run: RunFlags, arguments: list[str]) -> "ResultsHeader":
    """The plan of a new file."""
    from localspec.bench.case import read_prompts
    from localspec.bench.plan import make_plan
    from localspec.bench.store import ResultsHeader

    sweep = sweep_of(flags, arguments)
    if sweep.prompts:
        read_prompts(sweep.prompts, sweep.per_category)
    plan = make_plan(sweep)
    skipped = tuple((case.text, reason) for case, reason in plan.skipped.items())
    started = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    rounds, samples = run.rounds or flags.repeats, run.samples or flags.repeats
    return ResultsHeader(started, plan.cases, rounds, samples, skipped)


def _new_file(folder: Path) -> Path:
    stem = f"{datetime.now(UTC):%Y-%m-%d-%H%M%S}"
    names = (f"{stem}{ending}.jsonl" for ending in ("", *(f"-{i}" for i in range(2, 1000))))
    return next(folder / name for name in names if not (folder / name).exists())


def _unfinished(folder: Path) -> "tuple[Path, ResultsHeader]":
    from localspec.bench.store import read_results, result_files
    from localspec.bench.visit import remaining

    for path in result_files(folder):
        results = read_results(path)
        if remaining(results.header, results.visits):
            return path, results.header
    raise UserError(f"no results in {folder} are incomplete: run bench without --resume")


def _show_plan(header: "ResultsHeader") -> None:
    from localspec.bench.plan import schedule

    for case in header.cases:
        echo(case.text)
    for what, why in header.skipped:
        notify(f"left out: {what}: {why}")
    n_visits = len(schedule(header.cases, header.n_rounds))
    notify(
        f"{count(len(header.cases), 'case')}, {count(n_visits, 'visit')} of"
        f" {count(header.n_samples, 'sample')}"
    )


def _run(writer: "Writer", header: "ResultsHeader", flags: RunFlags) -> None:
    """Measure with progress. Ctrl-C tells how to go on."""
    from localspec.bench.prediction import Predictor
    from localspec.bench.visit import run

    for reason, n in Counter(why for _, why in header.skipped).items():
        notify(f"left out {count(n, 'case')}: {reason}")
    predictor = Predictor(header.cases, flags.probe, notify)
    try:
        predictor.prepare()
        with _progress() as (announce, stage):
            for visited in run(writer, predictor.of, announce, stage, flags.timeout):
                if visited.reason:
                    notify(f"{visited.case.text}: {visited.reason}")
    except KeyboardInterrupt:
        raise LocalspecError(
            f"interrupted; the samples so far are in {writer.path}: go on with --resume"
        ) from None


def _columns(width: int) -> "Sequence[ProgressColumn]":
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.table import Column

    text = TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis"))
    return BarColumn(12), MofNCompleteColumn(table_column=Column(no_wrap=True)), text


@contextmanager
def _progress() -> "Generator[tuple[Any, Any]]":
    """A bar on a terminal, a line for each visit elsewhere."""
    with bar(_columns) as made:
        if made is None:
            yield lambda planned, left: notify(f"{left} to go: {planned.case.text}"), silent
            return
        task = made.add_task("", total=None)
        case = ""

        def announce(planned: Any, left: int) -> None:
            nonlocal case
            total, case = planned.number + left, planned.case.text
            made.update(task, completed=planned.number, total=total, description=case)

        yield announce, lambda text: made.update(task, description=f"{case}: {text}")


def _show(path: Path, run: RunFlags) -> None:
    from localspec.bench.store import read_results
    from localspec.cli.report import print_results

    print_results([read_results(path)], "json" if run.as_json else run.form)
    if not run.as_json:
        notify(f"results are in {path}; `localspec report --html FILE {path.name}` draws them")


EVERY_WAY: dict[str, Any] = {"spec": "lookup,draft,mtp,eagle3,dflash,auto"}


NEED_NOTHING = ("none", "lookup", "auto")
"""Ways for which no drafter need be here."""


def _possible(
    configs: "Iterable[SessionConfig]", *, all_of_them: bool
) -> "Iterator[SessionConfig]":
    """Those whose drafter is here and is of the kind that they name.

    Raises LocalspecError where a way that needs none is refused, or any of them if all are wanted.
    """
    from localspec.session.loading import plan_engines

    for config in configs:
        try:
            plan_engines(config)
        except LocalspecError:
            if all_of_them or config.settings.spec in NEED_NOTHING:
                raise
        else:
            yield config


def _same_answer(flags: SweepFlags, arguments: list[str], *, as_json: bool) -> None:
    """Check that drafts change no greedy answer; exit code 1 where one differs beyond rounding.

    Without --spec: in every way that the models here allow.
    """
    from localspec.bench.case import read_prompts
    from localspec.bench.same_answer import TEXTS, by_plain, compare_answers

    is_asked = "spec" in flags.swept
    sweep = sweep_of(flags if is_asked else replace(flags, **EVERY_WAY), arguments)
    asked = sweep.prompts and read_prompts(sweep.prompts, sweep.per_category)
    texts = [prompt.text for prompt in asked] if asked else TEXTS
    configs = [case.config for case in sweep.cases()]
    groups = by_plain(dict.fromkeys(_possible(configs, all_of_them=is_asked)))
    if not groups:
        raise UserError("--same-answer compares drafts with plain decoding: name some with --spec")
    found = []
    for plain, drafted in groups.items():
        found.append(compare_answers(plain, drafted, texts, sweep.n_gen[0], notify))
        if not as_json:
            echo(found[-1].text)
    if as_json:
        print_json({"results": [one.to_json() for one in found]})
    if any(one.n_unexplained for one in found):
        raise typer.Exit(1)
