"""`localspec doctor`: what this machine and engine build can do, and what is wrong with them."""

import json
import platform
from dataclasses import asdict
from math import isfinite
from typing import Annotated, Any

import typer

from localspec.cli.doctor_probe import lines, probes
from localspec.cli.options import JsonFlag
from localspec.errors import LocalspecError

LABELS = {"relative_error_by_weight_type": "errors by type", "llama_cpp_python": "llama-cpp-python"}

TYPE_CHECKING = False
if TYPE_CHECKING:
    from localspec.hardware.machine import LocalDevice


def doctor(
    as_json: JsonFlag = False,
    retest: Annotated[bool, typer.Option("--retest", help="Test the engine build again.")] = False,
) -> None:
    """What this machine and this engine build can do."""
    findings = _findings(retest=retest)
    if as_json:
        typer.echo(json.dumps(findings, allow_nan=False))
    else:
        _show(findings)
    if findings["engine"].get("error") or findings["self_test"].get("error"):
        raise typer.Exit(1)


def _findings(*, retest: bool) -> dict[str, dict[str, Any]]:
    return {
        "localspec": _localspec(),
        "machine": _machine(),
        "engine": _or_error(_engine),
        "devices": _or_error(_devices),
        "probe": _or_error(probes),
        "self_test": _or_error(lambda: _self_test(retest=retest)),
        "starter": _or_error(_starter),
    }


def _or_error(look: Any) -> dict[str, Any]:
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
    from localspec.hardware import detect

    return {
        "system": platform.platform(terse=True),
        "processor": detect.processor_name(),
        "usable_cores": detect.usable_cores(),
        "available_memory_bytes": detect.available_memory_bytes(),
        "amx": "amx_int8" in detect.processor_features(),
    }


def _engine() -> dict[str, Any]:
    from localspec.engine.health import engine_version, library_folder
    from localspec.engine.llama.binding import engine_devices, engine_features

    return {
        "llama_cpp_python": engine_version(),
        "libraries": str(library_folder()),
        "features": engine_features(),
        "devices": [asdict(device) for device in engine_devices()],
    }


def _devices() -> dict[str, Any]:
    from localspec.forecast.machine import engine_reports
    from localspec.hardware.detect import power
    from localspec.hardware.machine import local_devices

    known = [_figures(device) for device in local_devices(engine_reports())]
    return {"power": power().text, "list": known}


def _figures(device: "LocalDevice") -> dict[str, Any]:
    published = device.match.device
    return {
        "backend": device.backend,
        "reported_as": device.name,
        "total_bytes": device.total_bytes,
        "free_bytes": device.free_bytes,
        "candidates": [candidate.name for candidate in device.match.candidates],
        "bandwidth_bytes_per_s": published.bandwidth_bytes_per_s if published else None,
        "fp32_flops_per_s": published.fp32_flops_per_s if published else None,
        "source": published.source if published else None,
    }


def _self_test(*, retest: bool) -> dict[str, Any]:
    from localspec.engine.health import engine_health, forget_verdict

    if retest:
        forget_verdict()
    health = engine_health(lambda message: None)
    advice = None
    if health.problem:
        advice = (
            "weights are used without repacking, which is slower and right; on a processor with "
            "AMX, scripts/setup --rebuild makes a build that keeps AMX and does not crash"
        )
    return {
        "sound": health.problem is None,
        "problem": health.problem,
        "advice": advice,
        "relative_error_by_weight_type": {
            kind: error if isfinite(error) else None for kind, error in health.errors.items()
        },
    }


def _starter() -> dict[str, Any]:
    from localspec.registry.resolve import local_file

    path = local_file(None)
    return {"path": str(path) if path else "not here: `localspec pull` gets it"}


def _show(findings: dict[str, dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for section, facts in findings.items():
        table.add_row(f"[bold]{section.replace('_', '-')}[/bold]", "")
        for name, value in facts.items():
            if section == "probe" and isinstance(value, dict):
                for label, shown in lines(value):
                    table.add_row(f"  {label}", Text(shown) if isinstance(shown, str) else shown)
            else:
                label = LABELS.get(name, name.removesuffix("_bytes").replace("_", " "))
                table.add_row(f"  {label}", Text(_text(name, value)))
    Console().print(table)


def _text(name: str, value: Any) -> str:
    match value:
        case str():
            return value
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case dict():
            return ", ".join(f"{kind} {_error(error)}" for kind, error in value.items())
        case list():
            return "\n".join(_device(device) for device in value)
        case float() | int() if name.endswith("_bytes"):
            return f"{value / 1e9:.1f} GB"
        case _:
            return str(value)


def _error(error: float | None) -> str:
    return "not a number" if error is None else f"{error:.1e}"


def _device(device: dict[str, Any]) -> str:
    if "reported_as" in device:
        return _known_device(device)
    memory = device["total_bytes"]
    return f"{device['name']}: {device['description']}" + (
        f", {memory / 1e9:.1f} GB" if memory else ""
    )


def _known_device(device: dict[str, Any]) -> str:
    """One of this machine, with what the table says of it."""
    total = device["total_bytes"]
    size = f", {total / 1e9:.1f} GB" if total else ""
    name = f"{device['backend']}: {device['reported_as']}{size}"
    if device["source"] is None:
        return f"{name}; not in the table of devices, so only the probe knows its speed"
    bandwidth = device["bandwidth_bytes_per_s"] / 1e9
    doubt = "" if len(device["candidates"]) == 1 else " or ".join(["", *device["candidates"][1:]])
    return f"{name}; {device['candidates'][0]}{doubt}: {bandwidth:,.0f} GB/s ({device['source']})"
