"""What the probe of this machine found, as a document and as lines for people."""

from typing import TYPE_CHECKING, Any

from localspec.cli.output import fields_of, table_of
from localspec.format import percent

if TYPE_CHECKING:
    from rich.table import Table

    from localspec.hardware.probe_results import Probe

FEW, MANY = 8, 128
"""Tokens of a pass that stand for small and for large batches."""


def probe_document(probe: "Probe") -> dict[str, Any]:
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


def _rate(amount: float, seconds: float) -> float | None:
    return amount / seconds if seconds else None


def probe_lines(document: dict[str, Any]) -> "list[tuple[str, str | Table]]":
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
