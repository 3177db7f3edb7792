"""`localspec doctor`: the abilities and faults of this machine and this engine build."""

import platform
from collections.abc import Callable
from dataclasses import asdict
from math import isfinite
from typing import TYPE_CHECKING, Any

import typer

from localspec.cli.options import JsonFlag
from localspec.cli.output import fields_of, labelled_table, print_json, table_of
from localspec.display import console
from localspec.errors import LocalspecError
from localspec.format import percent
from localspec.notify import silent

if TYPE_CHECKING:
    from rich.table import Table

    from localspec.hardware.machine import LocalDevice
    from localspec.hardware.probe_results import Probe

LABELS = {"relative_error_by_weight_type": "errors by type", "llama_cpp_python": "llama-cpp-python"}
ADVICE = (
    "weights are used without repacking, which is slower but correct; on a processor with AMX,"
    " scripts/setup --rebuild makes a build that keeps AMX and does not crash"
)
FEW, MANY = 8, 128
"""Tokens of a pass that stand for small and for large batches."""


def doctor(
    as_json: JsonFlag = False,
    retest: bool = typer.Option(False, "--retest", help="Test the engine build again."),
) -> None:
    """Show what this machine and this engine build can do."""
    findings = {
        "localspec": _localspec(),
        "machine": _machine(),
        "engine": _or_error(_engine),
        "devices": _or_error(_devices),
        "probe": _or_error(_probes),
        "self_test": _or_error(lambda: _self_test(retest=retest)),
        "starter": _or_error(_starter),
    }
    if as_json:
        print_json(findings)
    else:
        _show(findings)
    if findings["engine"].get("error") or findings["self_test"].get("error"):
        raise typer.Exit(1)


def _or_error(look: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return look()
    except LocalspecError as error:
        return {"error": str(error)}


def _localspec() -> dict[str, Any]:
    from localspec import __version__, paths

    return {
        "version": __version__,
        "python": platform.python_version(),
        "configuration": str(paths.config_dir()),
        "data": str(paths.data_dir()),
        "cache": str(paths.cache_dir()),
    }


def _machine() -> dict[str, Any]:
    from localspec.engine.threads import default_threads
    from localspec.hardware import detect

    return {
        "system": platform.platform(terse=True),
        "processor": detect.processor_name(),
        "usable_cores": detect.usable_cores(),
        "threads": default_threads(),
        "available_memory_bytes": detect.available_memory_bytes(),
        "amx": "amx_int8" in detect.processor_features(),
    }


def _engine() -> dict[str, Any]:
    from localspec.engine.health import engine_version, library_folder
    from localspec.engine.llama.binding import engine_features
    from localspec.engine.llama.devices import reported

    return {
        "llama_cpp_python": engine_version(),
        "libraries": str(library_folder()),
        "features": engine_features(),
        "devices": [asdict(device) for device in reported()],
    }


def _devices() -> dict[str, Any]:
    from localspec.engine.devices import engine_reports
    from localspec.hardware.detect import power
    from localspec.hardware.machine import local_devices

    known = [_figures(device) for device in local_devices(engine_reports())]
    return {"power": power().text, "list": known}


def _figures(device: "LocalDevice") -> dict[str, Any]:
    published = device.match.device
    known = ("bandwidth_bytes_per_s", "fp32_flops_per_s", "source")
    return {
        **fields_of(device, "backend", "total_bytes", "free_bytes"),
        "reported_as": device.name,
        "candidates": [candidate.name for candidate in device.match.candidates],
        **{name: getattr(published, name, None) for name in known},
    }


def _probes() -> dict[str, Any]:
    """Results of the probe by device, or a sentence where there are none."""
    from localspec.engine.health import engine_health
    from localspec.engine.probe import ProbeSetting, kept_probe
    from localspec.engine.threads import default_threads

    sound = engine_health(silent).can_repack
    settings = {
        place: ProbeSetting(default_threads(), n_layers, sound)
        for place, n_layers in (("processor", 0), ("gpu", -1))
    }
    found = {n: _probe(probe) for n, each in settings.items() if (probe := kept_probe(each))}
    return found or {"measured": "not yet; `localspec predict` does it when it needs to"}


def _probe(probe: "Probe") -> dict[str, Any]:
    return {
        "measured": probe.taken,
        **fields_of(probe, "setting", "others_share"),
        "memory_read_bytes_per_s": probe.read_bytes_per_s,
        "pass_overhead_s": probe.pass_s[0][1],
        "layer_overhead_s": probe.layer_s[0][1],
        "weights": _weights(probe),
        "attention": _attention(probe),
    }


def _weights(probe: "Probe") -> list[dict[str, Any]]:
    """Most types were measured at the end widths alone: null for small batches."""
    from localspec.gguf.types import BY_NAME
    from localspec.hardware.probe_results import END_WIDTHS

    return [
        {
            **fields_of(case, "type", "width", "size_bytes"),
            "bytes_per_s": _rate(BY_NAME[case.type].bits_per_element / 8, curve[0][1]),
            "small_batch_flops_per_s": (
                None if len(curve) == len(END_WIDTHS) else _rate(2 * FEW, curve.at(FEW))
            ),
            "large_batch_flops_per_s": _rate(2 * MANY, curve.at(MANY)),
        }
        for case, curve in sorted(probe.weight_s.items())
    ]


def _rate(amount: float, seconds: float) -> float | None:
    return amount / seconds if seconds else None


def _attention(probe: "Probe") -> list[dict[str, Any]]:
    return [
        {
            "kv_k": case.type_k,
            "kv_v": case.type_v,
            "flash_attn": case.flash,
            "head_size": case.head_size,
            "head_cell_s": costs[0].by_cells[-1][1] / costs[0].by_cells[-1][0] * case.head_size,
        }
        for case, costs in sorted(probe.attention_s.items())
    ]


def _self_test(*, retest: bool) -> dict[str, Any]:
    from localspec.engine.health import engine_health, forget_verdict

    if retest:
        forget_verdict()
    health = engine_health(silent)
    return {
        "sound": health.problem is None,
        "problem": health.problem,
        "advice": ADVICE if health.problem else None,
        "relative_error_by_weight_type": {
            kind: error if isfinite(error) else None for kind, error in health.errors.items()
        },
    }


def _starter() -> dict[str, Any]:
    from localspec.registry.resolve import local_file

    path = local_file(None)
    return {"path": str(path) if path else "not here: `localspec pull` gets it"}


def _show(findings: dict[str, dict[str, Any]]) -> None:
    from rich.text import Text

    table = labelled_table()
    for section, facts in findings.items():
        table.add_row(Text(section.replace("_", "-"), style="bold"), "")
        for name, value in facts.items():
            if section == "probe" and isinstance(value, dict):
                for label, shown in _probe_lines(value):
                    table.add_row(f"  {label}", Text(shown) if isinstance(shown, str) else shown)
            else:
                label = LABELS.get(name, name.removesuffix("_bytes").replace("_", " "))
                table.add_row(f"  {label}", Text(_text(name, value)))
    console().print(table)


def _probe_lines(document: dict[str, Any]) -> "list[tuple[str, str | Table]]":
    """Labels, and a text or table beside each."""
    read = document["memory_read_bytes_per_s"]
    others = document["others_share"]
    overheads = (document[f"{each}_overhead_s"] for each in ("pass", "layer"))
    each_pass, each_layer = (f"{seconds * 1e6:.0f} us" for seconds in overheads)
    return [
        ("measured", f"{document['measured']}: {document['setting']}"),
        *([("meanwhile", f"other programs had {percent(others)} of it")] if others >= 0.01 else []),
        *([("memory read", f"{read / 1e9:.1f} GB/s, the ceiling")] if read else []),
        ("overhead", f"{each_pass} a pass, and for each layer {each_layer}"),
        ("weights", _weights_table(document["weights"])),
        ("attention", _attention_table(document["attention"])),
    ]  # fmt: skip


def _weights_table(rows: list[dict[str, Any]]) -> "Table":
    heads = ("type", "width", "MB", "GB/s", f"GFLOP/s at {FEW}", f"at {MANY}")
    cells = (
        (
            row["type"],
            str(row["width"]),
            f"{row['size_bytes'] / 1e6:.0f}",
            _giga(row["bytes_per_s"], 1),
            *(_giga(row[f"{batch}_batch_flops_per_s"]) for batch in ("small", "large")),
        )
        for row in rows
    )
    return table_of(*heads, rows=cells, no_wrap=False)


def _attention_table(rows: list[dict[str, Any]]) -> "Table":
    cells = (
        (
            "/".join(dict.fromkeys((row["kv_k"], row["kv_v"]))),
            str(row["head_size"]),
            "flash" if row["flash_attn"] else "plain",
            f"{row['head_cell_s'] * 1e9:.1f}",
        )
        for row in rows
    )
    return table_of("K/V", "head", "kernel", "ns/cell", rows=cells, no_wrap=False)


def _giga(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value / 1e9:,.{digits}f}"


def _text(name: str, value: Any) -> str:
    match value:
        case str():
            return value
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case dict():
            errors = {k: "not a number" if e is None else f"{e:.1e}" for k, e in value.items()}
            return ", ".join(f"{kind} {error}" for kind, error in errors.items())
        case list():
            return "\n".join(_device(device) for device in value)
        case float() | int() if name.endswith("_bytes"):
            return f"{value / 1e9:.1f} GB"
        case _:
            return str(value)


def _device(device: dict[str, Any]) -> str:
    """One that the engine reports, or one of this machine with its published figures."""
    total = device["total_bytes"]
    memory = f", {total / 1e9:.1f} GB" if total else ""
    if "reported_as" not in device:
        return f"{device['name']}: {device['description']}{memory}"
    name = f"{device['backend']}: {device['reported_as']}{memory}"
    if device["source"] is None:
        return f"{name}; not in the table of devices, so only the probe knows its speed"
    bandwidth = device["bandwidth_bytes_per_s"] / 1e9
    candidates = " or ".join(device["candidates"])
    return f"{name}; {candidates}: {bandwidth:,.0f} GB/s ({device['source']})"
