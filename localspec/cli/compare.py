"""`localspec compare`: two result files, regressions first."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from localspec.cli.notify import notify
from localspec.cli.report import open_results

if TYPE_CHECKING:
    from localspec.bench.compare import Compared, Comparison
    from localspec.bench.row import ResultRow

File = Annotated[str, typer.Argument(metavar="FILE", help="Results of `localspec bench`.")]


def compare(
    before: File,
    after: File,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Two results: how much faster or slower the second is, by case, regressions first.

    localspec compare old-engine.jsonl new-engine.jsonl
    """
    from localspec.bench.compare import compare as compared

    found = compared(open_results(before), open_results(after))
    if as_json:
        typer.echo(json.dumps(_document(found), allow_nan=False))
    else:
        _show(found)


def _document(found: "Comparison") -> dict[str, Any]:
    return {
        "differs": list(found.differs),
        "drift": found.drift.sd if found.drift else None,
        "cases": [
            {
                "case": case.b.case.work.text,
                "model": case.b.model_name,
                "setting": case.b.case.setting_text,
                "measure": case.measure,
                "ratio": {"low": case.ratio.low, "mid": case.ratio.mid, "high": case.ratio.high},
                "verdict": case.ratio.verdict,
                "before_tps": _tps(case.a, case),
                "after_tps": _tps(case.b, case),
                "differs": list(case.differs),
            }
            for case in found.cases
        ],
        "only_before": [row.case.text for row in found.only_a],
        "only_after": [row.case.text for row in found.only_b],
    }


def _show(found: "Comparison") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from localspec.bench.report.documents import labels
    from localspec.format import interval, number

    console = Console(highlight=False)
    for text in found.differs:
        console.print(Text(text))
    drift = f", drift {100 * found.drift.sd:.1f} %" if found.drift else ""
    console.print(Text(f"tok/s before and after; ratio with its 99 % interval{drift}\n"))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("case", overflow="fold")
    for name in ("", "before", "after", "ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    names = labels([case.b for case in found.cases])
    for case, name in zip(found.cases, names, strict=True):
        ratio = case.ratio
        own = [text for text in case.differs if text not in found.differs]
        table.add_row(
            ", ".join([name, *own]),
            case.measure,
            number(_tps(case.a, case)),
            number(_tps(case.b, case)),
            interval(ratio.mid, ratio.low, ratio.high),
            Text(ratio.verdict, style={"slower": "red", "faster": "green"}.get(ratio.verdict, "")),
        )
    console.print(table)
    for side, rows in (("before", found.only_a), ("after", found.only_b)):
        for row in rows:
            notify(f"only {side}: {row.case.text}")


def _tps(row: "ResultRow", case: "Compared") -> float | None:
    estimate = row.decode_tps if case.measure == "decode" else row.prefill_tps
    return estimate.mid if estimate else None
