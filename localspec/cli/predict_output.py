"""A forecast for people: tables, and pictures of the speed and of the gain of drafts."""

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from localspec.bench.report.chart import Chart, ChartPoint, Series
from localspec.bench.report.svg import picture
from localspec.cli.output import fitting, labelled_table, table_of, write_text
from localspec.display import console as console_of
from localspec.forecast.forecast import Forecast, ForecastRow, SpeculationRow
from localspec.forecast.head_forecast import HeadForecast
from localspec.format import percent, size
from localspec.prediction.rates import Speed

DROPPED = ("first", "prefill", "memory", "bound by", "latency")
"""Columns that a narrow terminal drops, in this order."""
SHOWN_LENGTHS = (1, 2, 3, 4, 5, 7, 9, 11, 15)


def show(forecast: Forecast) -> None:
    """Print the whole forecast."""
    console = console_of()
    console.print(Text("\n".join(_heading(forecast))))
    console.print(_rows(console, forecast))
    for line in _findings(forecast):
        console.print(Text(line))
    if forecast.head is not None:
        console.print(Text(_head_lines(forecast.head)))
    if forecast.draft is not None:
        _show_speculation(console, forecast)
    console.print(Text("\nSpeculation by use" + _drafter(forecast)))
    advice = labelled_table()
    for item in forecast.advice:
        advice.add_row(f"  {item.use.name}", item.sentence)
    console.print(advice)
    if forecast.quants:
        console.print(Text("\nOther quantizations (depth 0; quality as published for LLaMA-3-8B)"))
        console.print(_quants(forecast))


def _heading(forecast: Forecast) -> list[str]:
    facts, machine = forecast.facts, forecast.machine
    name = facts.name or facts.path
    lines = [f"{name} {facts.file_type}, {size(facts.weight_bytes)}, on {machine.name}"]
    bandwidth = machine.bandwidth_bytes_per_s
    if bandwidth:
        lines.append(f"  bandwidth {bandwidth / 1e9:,.1f} GB/s ({machine.source})")
    lines.append(f"  from {machine.rates.source}")
    if machine.free_bytes is not None:
        lines.append(f"  {size(machine.free_bytes)} of memory free")
    for share in machine.peer_shares(facts, forecast.rows[0].cache):
        output = " and the output matrix" if share.has_output else ""
        lines.append(
            f"  {share.name}: {share.n_layers} layers{output}, {_seconds(share.token_s)} a token,"
            f" {_seconds(share.hop_s)} to reach it"
        )
    verdict = machine.verdict(facts, forecast.rows[0].cache)
    lines += [f"  {verdict}"] if verdict else []
    return [*lines, *(f"  {note}" for note in machine.notes), ""]


def _rows(console: Console, forecast: Forecast) -> Table:
    """As many columns as fit the terminal, without the least needed."""
    columns: dict[str, Callable[[ForecastRow], str]] = {
        "K/V": _types,
        "depth": lambda row: f"{row.depth:,}",
        "batch": lambda row: str(row.batch),
        "latency": lambda row: _seconds(row.token_s),
        "decode tok/s": lambda row: _interval(row.decode),
        "prefill": lambda row: f"{row.prefill.mid:,.0f}",
        "first": lambda row: _seconds(row.first_token.mid),
        "memory": lambda row: size(row.memory.total_bytes),
        "bound by": lambda row: row.bound.removeprefix("memory "),
    }
    if all(row.batch == 1 for row in forecast.rows):
        del columns["batch"], columns["latency"]

    def made(names: Sequence[str]) -> Table:
        table, before = table_of(*names), ""
        for row in forecast.rows:
            cells = [columns[name](row) for name in names]
            types, before = before, cells[0]
            table.add_row("" if cells[0] == types else cells[0], *cells[1:])
        return table

    return fitting(console, made, tuple(columns), *DROPPED)


def _types(row: ForecastRow) -> str:
    return "/".join(dict.fromkeys((row.cache.kv_k, row.cache.kv_v)))


def _findings(forecast: Forecast) -> list[str]:
    lines: list[str] = []
    first = forecast.rows[0]
    if forecast.ceiling_tps and first.batch == 1:
        share = first.decode.mid / forecast.ceiling_tps
        lines.append(
            f"Full bandwidth would give {forecast.ceiling_tps:,.1f} tok/s; the prediction at depth"
            f" {first.depth:,} is {percent(share)} of that."
        )
    if forecast.break_even_batch:
        lines.append(f"Arithmetic is the limit from a batch of {forecast.break_even_batch} on.")
    return ["", *lines] if lines else []


def _head_lines(head: HeadForecast) -> str:
    """What the head costs, and for whom it pays."""
    where = "in the model's file" if head.is_inside else size(head.weight_bytes)
    if head.n_snapshots and head.snapshot_bytes is None:
        states = ", and states of the model of unknown size"
    else:
        taken = head.n_snapshots * (head.snapshot_bytes or 0)
        states = f", of which {head.n_snapshots} states {size(taken)}" if taken else ""
    cells = f"{head.token_bytes:,} bytes a token" if head.token_bytes else "none of its own"
    lines = [
        f"\nDraft head ({head.method}), {where}: a step reads {size(round(head.step_bytes))}",
        f"  {size(head.memory_bytes)} of memory for each user{states}; cache: {cells}",
    ]
    for each in head.users:
        pays = "never pays" if each.break_even is None else f"from {percent(each.break_even)}"
        if each.break_even is not None:
            best = f"draft {each.best.n_draft}: {each.best.speedup:.2f} x"
            pays = f"{pays:10}  {best if each.best.n_draft else 'no drafts'}"
            pays += f" at {percent(each.best.acceptance)} acceptance"
        lines.append(f"  {each.n_users:2} users  {pays}")
    return "\n".join(lines).replace(" 1 users", " 1 user ")


def _show_speculation(console: Console, forecast: Forecast) -> None:
    for row in forecast.speculation:
        pays = (
            "no draft can pay" if row.break_even is None else f"pays from {percent(row.break_even)}"
        )
        users = f", batch {row.batch}" if row.batch > 1 else ""
        console.print(
            Text(
                f"\nDrafting at depth {row.depth:,}{users}: one token costs"
                f" {row.costs.draft_cost:.2f} plain passes; {pays}"
            )
        )
        table = table_of("draft", "v(n)", *(percent(gain.acceptance) for gain in row.best))
        for n in (n for n in SHOWN_LENGTHS if n <= row.costs.max_draft):
            speedups = [row.costs.speedup(gain.acceptance, n) for gain in row.best]
            marks = ["*" if gain.n_draft == n else " " for gain in row.best]
            cells = [f"{s:.2f}x{mark}" for s, mark in zip(speedups, marks, strict=True)]
            table.add_row(str(n), f"{row.costs.verify(n + 1):.2f}", *cells)
        console.print(table)


def _drafter(forecast: Forecast) -> str:
    if forecast.draft is None:
        return " (lookup, which costs nothing to draft)"
    return f" ({forecast.draft.name or forecast.draft.path} drafts)"


def _quants(forecast: Forecast) -> Table:
    cells = (
        (
            quant.name,
            size(quant.weight_bytes),
            _interval(quant.decode),
            f"{quant.prefill.mid:,.0f}",
            "-" if quant.kld is None else f"{quant.kld:.4f}",
        )
        for quant in forecast.quants
    )
    return table_of("type", "size", "decode tok/s", "prefill", "KL nats/token", rows=cells)


def _interval(speed: Speed) -> str:
    digits = 0 if speed.mid >= 100 else 1
    return f"{speed.mid:,.{digits}f} ({speed.low:,.{digits}f}–{speed.high:,.{digits}f})"  # noqa: RUF001


def _seconds(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:,.1f} s"
    return f"{seconds * 1e3:.{1 if seconds < 0.01 else 0}f} ms"


def write_plot(forecast: Forecast, path: Path) -> None:
    """Draw the gain of drafts, a panel for each depth and batch. Raises UserError if that fails."""
    target = forecast.facts.name or forecast.facts.path
    draft = forecast.draft.name or forecast.draft.path if forecast.draft else "lookup"
    title = f"{draft} drafts for {target} on {forecast.machine.name}"
    panels = [_speeds(forecast), *(_gains(row) for row in forecast.speculation)]
    panels[1:1] = _resting(forecast)
    write_text(path, "--plot", picture(title, panels))


def _speeds(forecast: Forecast) -> Chart:
    """Plain decoding by depth, with the interval, and what it rests on."""
    first = forecast.rows[0]
    rows = [r for r in forecast.rows if (r.cache, r.batch) == (first.cache, first.batch)]
    names = {"mid": "predicted", "low": "80 % interval", "high": ""}
    series = tuple(
        Series.line(
            label,
            (ChartPoint(row.depth, getattr(row.decode, name)) for row in rows),
            0 if name == "mid" else None,
            dashed=name != "mid",
        )
        for name, label in names.items()
    )
    title = f"decoding: rests on {forecast.machine.rates.source}"
    return Chart("speed", title, "", "tokens in the context", "tokens per second", series)


def _resting(forecast: Forecast) -> list[Chart]:
    """The runs that the prediction rests on, each beside what was predicted without it."""
    runs = forecast.machine.experience.runs
    if not runs:
        return []
    groups = {
        "this machine": [each for each in runs if each.is_of_machine],
        "this model elsewhere": [r for r in runs if r.is_of_model and not r.is_of_machine],
        "others": [r for r in runs if not r.is_of_model and not r.is_of_machine],
    }
    series = [
        Series(
            name,
            tuple(
                ChartPoint(each.predicted_per_s, each.run.tokens_per_s, note=each.run.text)
                for each in found
            ),
            tone=i,
        )
        for i, (name, found) in enumerate(groups.items())
        if found
    ]
    ends = [f(each.predicted_per_s for each in runs) for f in (min, max)]
    equal = Series.line("", (ChartPoint(x, x) for x in ends))
    title = f"rests on {len(runs)} measured runs"
    labels = ("tokens per second, predicted without them", "measured")
    return [Chart("runs", title, "", *labels, (equal, *series), is_log=True)]


def _gains(row: SpeculationRow) -> Chart:
    """Speed-up by draft length, a line for each acceptance with its best length marked."""
    lengths = range(row.costs.max_draft + 1)
    plain = Series.line("", (ChartPoint(n, 1.0) for n in lengths))
    lines = [
        Series.line(
            f"{percent(gain.acceptance)} accepted, best {gain.n_draft}",
            (ChartPoint(n, row.costs.speedup(gain.acceptance, n)) for n in lengths),
            i,
        )
        for i, gain in enumerate(row.best)
    ]
    title = f"depth {row.depth:,}, batch {row.batch}"
    return Chart("gain", title, "", "drafted tokens", "times plain speed", (plain, *lines))
