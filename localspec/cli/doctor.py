"""`localspec doctor`: the abilities and faults of this machine and this engine build."""

import platform
from collections.abc import Callable
from dataclasses import asdict
from math import isfinite
from typing import TYPE_CHECKING, Any

import typer

from localspec.cli.doctor_probe import probe_document, probe_lines
from localspec.cli.options import JsonFlag
from localspec.cli.output import fields_of, labelled_table, print_json
from localspec.display import console
from localspec.errors import LocalspecError
from localspec.format import percent
from localspec.notify import silent

if TYPE_CHECKING:
    from localspec.hardware.machine import LocalDevice

LABELS = {
    "relative_error_by_weight_type": "errors by type",
    "llama_cpp_python": "llama-cpp-python",
    "published_layer_us": "us of a layer",
    "published_bandwidth_shares": "of its bandwidth",
    "published_interval": "80 % interval",
}
ADVICE = (
    "weights are used without repacking, which is slower but correct; on a processor with AMX,"
    " scripts/setup --rebuild makes a build that keeps AMX and does not crash"
)


def doctor(
    as_json: JsonFlag = False,
    retest: bool = typer.Option(False, "--retest", help="Test the engine build again."),
) -> None:
    """Show what this machine and this engine build can do."""
    from localspec.forecast.rated_machine import prediction_basis

    findings = {
        "localspec": _localspec(),
        "machine": _machine(),
        "engine": _or_error(_engine),
        "devices": _or_error(_devices),
        "graphics": _graphics(),
        "probe": _or_error(_probes),
        "prediction": _or_error(prediction_basis),
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


def _graphics() -> dict[str, Any]:
    """What the system says of cards, whatever the engine was built for."""
    from localspec.hardware.gpus import system_cards, wired_limit_bytes

    cards = [{**asdict(card), "problem": card.problem} for card in system_cards()]
    return {"cards": cards, "wired_limit_bytes": wired_limit_bytes()}


def _devices() -> dict[str, Any]:
    from localspec.engine.graphics import engine_reports
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
    probes = {place: kept_probe(setting) for place, setting in settings.items()}
    found = {place: probe_document(probe) for place, probe in probes.items() if probe}
    return found or {"measured": "not yet; `localspec predict` does it when it needs to"}


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
                for label, shown in probe_lines(value):
                    table.add_row(f"  {label}", Text(shown) if isinstance(shown, str) else shown)
            else:
                label = LABELS.get(name, name.removesuffix("_bytes").replace("_", " "))
                table.add_row(f"  {label}", Text(_text(name, value)))
    console().print(table)


def _text(name: str, value: Any) -> str:
    match value:
        case str():
            return value
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case dict():
            return ", ".join(f"{kind} {_of_type(name, each)}" for kind, each in value.items())
        case list():
            return "\n".join(_device(device) for device in value)
        case float() | int() if name.endswith("_bytes"):
            return f"{value / 1e9:.1f} GB"
        case _:
            return str(value)


def _of_type(name: str, value: float | None) -> str:
    """A share of the bandwidth, or an error, of one weight type."""
    if value is None:
        return "not a number"
    return percent(value) if name.endswith("_shares") else f"{value:.1e}"


def _card(card: dict[str, Any]) -> str:
    own, mappable = card["own_bytes"], card["mappable_bytes"]
    parts = [
        card["driver"] and f"driver {card['driver']}",
        card["render_node"],
        card["gfx_target"],
        own and f"{own / 1e9:.1f} GB of its own",
        mappable and f"{mappable / 1e9:.1f} GB of the machine's mappable",
        card["is_part_of_processor"] and "part of the processor",
        card["problem"],
    ]
    return f"{card['vendor']}: {', '.join(filter(None, parts)) or '-'}"


def _device(device: dict[str, Any]) -> str:
    """One that the engine reports, one of this machine with its published figures, or a card."""
    if "vendor" in device:
        return _card(device)
    total = device["total_bytes"]
    memory = f", {total / 1e9:.1f} GB" if total else ""
    if "reported_as" not in device:
        spare = "; not used: another backend computes on this card" if device["is_twin"] else ""
        return f"{device['name']}: {device['description']}{memory}{spare}"
    name = f"{device['backend']}: {device['reported_as']}{memory}"
    if device["source"] is None:
        return f"{name}; not in the table of devices, so only the probe knows its speed"
    bandwidth = device["bandwidth_bytes_per_s"] / 1e9
    candidates = " or ".join(device["candidates"])
    return f"{name}; {candidates}: {bandwidth:,.0f} GB/s ({device['source']})"
