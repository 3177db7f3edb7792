"""What a probe of this machine found, for `doctor`: a document, and tables for people."""

from typing import TYPE_CHECKING, Any

from localspec.format import percent

if TYPE_CHECKING:
    from rich.table import Table

    from localspec.hardware.probe_results import (
        AttentionCase,
        AttentionCost,
        Curve,
        Probe,
        WeightCase,
    )


FEW, MANY = 8, 128
"""Tokens of a pass that stand for small and for large batches."""


def probes() -> dict[str, Any]:
    """What was measured here, by where it ran; only a sentence where nothing was."""
    from localspec.engine.health import engine_health
    from localspec.engine.probe import ProbeSetting, kept_probe
    from localspec.hardware.detect import usable_cores

    sound = engine_health(lambda message: None).can_repack
    places = {"processor": 0, "gpu": -1}
    kept = {
        place: kept_probe(ProbeSetting(usable_cores(), n_layers, sound))
        for place, n_layers in places.items()
    }
    found = {place: _document(probe) for place, probe in kept.items() if probe}
    return found or {"measured": "not yet; `localspec predict` does it when it needs to"}


def _document(probe: "Probe") -> dict[str, Any]:
    return {
        "measured": probe.taken,
        "setting": probe.setting,
        "others_share": probe.others_share,
        "memory_read_bytes_per_s": probe.read_bytes_per_s,
        "pass_overhead_s": probe.pass_s[0][1],
        "layer_overhead_s": probe.layer_s[0][1],
        "weights": [_weights(case, curve) for case, curve in sorted(probe.weight_s.items())],
        "attention": [_attention(case, costs) for case, costs in sorted(probe.attention_s.items())],
    }


def _weights(case: "WeightCase", curve: "Curve") -> dict[str, Any]:
    from localspec.gguf.types import BY_NAME
    from localspec.hardware.probe_results import END_WIDTHS

    def flops_per_s(n_tokens: int) -> float | None:
        if n_tokens == FEW and len(curve) == len(END_WIDTHS):
            return None
        seconds = curve.at(n_tokens)
        return 2 * n_tokens / seconds if seconds else None

    one_s = curve[0][1]
    return {
        "type": case.type,
        "width": case.width,
        "size_bytes": case.size_bytes,
        "bytes_per_s": BY_NAME[case.type].bits_per_element / 8 / one_s if one_s else None,
        "small_batch_flops_per_s": flops_per_s(FEW),
        "large_batch_flops_per_s": flops_per_s(MANY),
    }


def _attention(case: "AttentionCase", costs: "tuple[AttentionCost, ...]") -> dict[str, Any]:
    cells, seconds = costs[0].by_cells[-1]
    return {
        "kv_k": case.type_k,
        "kv_v": case.type_v,
        "flash_attn": case.flash,
        "head_size": case.head_size,
        "head_cell_s": seconds / cells * case.head_size,
    }


def lines(document: dict[str, Any]) -> "list[tuple[str, str | Table]]":
    """Labels and what stands beside them."""
    read = document["memory_read_bytes_per_s"]
    others = document["others_share"]
    return [
        ("measured", f"{document['measured']}: {document['setting']}"),
        *([("meanwhile", f"other programs had {percent(others)} of it")] if others >= 0.01 else []),
        *([("memory read", f"{read / 1e9:.1f} GB/s, the ceiling")] if read else []),
        ("overhead", f"{_us(document['pass_overhead_s'])} a pass, and for each layer"
         f" {_us(document['layer_overhead_s'])}"),
        ("weights", _weights_table(document["weights"])),
        ("attention", _attention_table(document["attention"])),
    ]  # fmt: skip


def _weights_table(rows: list[dict[str, Any]]) -> "Table":
    table = _table("type", "width", "MB", "GB/s", f"GFLOP/s at {FEW}", f"at {MANY}")
    for row in rows:
        table.add_row(
            row["type"],
            str(row["width"]),
            f"{row['size_bytes'] / 1e6:.0f}",
            _giga(row["bytes_per_s"], 1),
            _giga(row["small_batch_flops_per_s"]),
            _giga(row["large_batch_flops_per_s"]),
        )
    return table


def _attention_table(rows: list[dict[str, Any]]) -> "Table":
    table = _table("K/V", "head", "kernel", "ns/cell")
    for row in rows:
        table.add_row(
            "/".join(dict.fromkeys((row["kv_k"], row["kv_v"]))),
            str(row["head_size"]),
            "flash" if row["flash_attn"] else "plain",
            f"{row['head_cell_s'] * 1e9:.1f}",
        )
    return table


def _table(*columns: str) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for i, name in enumerate(columns):
        table.add_column(name, justify="left" if i == 0 else "right")
    return table


def _giga(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value / 1e9:,.{digits}f}"


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} us"
