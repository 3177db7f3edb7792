"""The structure of a checkout in figures: how much there is, and what one has to read.

    scripts/research/run structure CHECKOUT... [--trace] [--policy GLOB] [--json]

Several checkouts stand side by side; a JSON file that an earlier run wrote stands for its checkout.
Nothing of a checkout is imported, but for --trace: that runs `generate` in a home of its own and
counts which functions a reply enters. It needs the engine and the starter model.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from research.structure_figures import Figures, figures_of
from research.structure_trace import traced

POLICY = (
    "decode/policy.py",
    *(
        f"speculate/{name}.py"
        for name in (
            "acceptance", "adaptive", "costs", "experience", "ledger", "lookup_choice",
            "model_choice", "pace", "parking", "rest", "table",
        )
    ),
)  # fmt: skip
"""Where the adaptive policy stands, in the old layout and in the new one."""


def rows_of(figures: Figures) -> dict[str, str]:
    """What the table shows of a checkout."""
    functions, modules = figures["function_lines"], figures["module_lines"]
    constants = figures["constants"].values()
    tables = [n for of_file in constants for n in of_file["tables"].values()]
    cycles = figures["import_cycles"], figures["import_cycles_hidden_in_functions"]
    rows = {
        "modules (without `__init__`)": f"{figures['modules']} ({figures['modules_without_init']})",
        "formatted lines": f"{figures['lines']:,}",
        "lines of a module: median, longest": f"{modules['median']:g}, {modules['max']}",
        "functions": f"{figures['functions']:,}",
        "lines of a function: median, p90, longest": (
            f"{functions['median']:g}, {functions['p90']}, {functions['max']}"
        ),
        "most parameters": str(figures["most_parameters"]),
        "public functions with a docstring": _percent(figures["public_functions_with_docstring"]),
        "public functions and classes with one": _percent(
            figures["public_functions_and_classes_with_docstring"]
        ),
        "class names in several modules (and aliases)": (
            f"{len(figures['class_names_in_several_modules'])}"
            f" ({len(figures['class_and_alias_names_in_several_modules'])})"
        ),
        "file names in two folders, in three": (
            f"{len(figures['file_names_in_two_folders'])},"
            f" {len(figures['file_names_in_three_folders'])}"
        ),
        "import cycles, more within functions": f"{len(cycles[0])}, {len(cycles[1])}",
        "files of the policy": str(len(constants)),
        "its constants: scalars, tables (their numbers)": (
            f"{sum(len(c['scalars']) for c in constants)}, {len(tables)} ({sum(tables)})"
        ),
    }
    return rows | {
        f"{name} decoding enters: files, functions (their lines)": (
            f"{len(trace['files'])}, {len(trace['functions'])} ({trace['lines']:,})"
        )
        for name, trace in figures.get("trace", {}).items()
    }


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def markdown(by_checkout: Mapping[str, Figures]) -> str:
    """One column a checkout."""
    columns = [rows_of(figures) for figures in by_checkout.values()]
    names = dict.fromkeys(name for column in columns for name in column)
    lines = [["", *by_checkout], ["---", *("--:" for _ in columns)]]
    lines += [[name, *(column.get(name, "") for column in columns)] for name in names]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(
    checkouts: Annotated[
        list[Path], typer.Argument(metavar="CHECKOUT|FILE.json", help="Or what --json wrote.")
    ],
    trace: Annotated[bool, typer.Option("--trace", help="Also what a reply enters.")] = False,
    policy: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Files of the policy.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="All figures and names.")] = False,
) -> None:
    """The structure of checkouts in figures, side by side."""
    found: dict[str, Figures] = {}
    for path in map(Path.resolve, checkouts):
        if path.suffix == ".json":
            found |= json.loads(path.read_text(encoding="utf-8"))
            continue
        found[path.name] = figures_of(path, policy or POLICY)
        if trace:
            found[path.name]["trace"] = traced(path)
    print(json.dumps(found, indent=1) if as_json else markdown(found))
