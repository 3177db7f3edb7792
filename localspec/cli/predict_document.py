"""A forecast as a document, whose names docs/reference/json.md lists."""

from dataclasses import asdict
from typing import Any

from localspec.cli.output import fields_of
from localspec.forecast.corrections import RestingRun
from localspec.forecast.forecast import Forecast, ForecastRow, SpeculationRow
from localspec.forecast.head_forecast import HeadForecast
from localspec.prediction.speculation import Advice

DEVICE = (
    "name", "bandwidth_bytes_per_s", "flops_per_s", "memory_bytes", "free_bytes", "source",
)  # fmt: skip
MODEL = (
    "path", "name", "architecture", "file_type", "n_params", "active_params", "n_layers",
    "n_ctx_train", "weight_bytes", "streamed_bytes",
)  # fmt: skip


HEAD = (
    "method", "file", "is_inside", "n_draft_max", "weight_bytes", "step_bytes", "token_bytes",
    "context_bytes", "n_snapshots", "snapshot_bytes", "memory_bytes", "pays_for_users",
)  # fmt: skip


def document(forecast: Forecast) -> dict[str, Any]:
    """Plain values; an unknown one is null."""
    return {
        "device": {**fields_of(forecast.machine, *DEVICE), "rates": forecast.machine.rates.source},
        "devices": _devices(forecast),
        "verdict": verdict_of(forecast),
        "model": fields_of(forecast.facts, *MODEL),
        "rows": [_row(row) for row in forecast.rows],
        "ceiling_tps": forecast.ceiling_tps,
        "break_even_batch": forecast.break_even_batch,
        "speculation": _speculation(forecast),
        "head": forecast.head and _head_document(forecast.head),
        "advice": [_advice_document(item) for item in forecast.advice],
        "quants": [asdict(quant) for quant in forecast.quants] or None,
        "notes": list(forecast.machine.notes),
        "runs": [_run(each) for each in forecast.machine.experience.runs],
    }


def _run(each: RestingRun) -> dict[str, Any]:
    return {
        **fields_of(each.run, "source", "device", "backend", "file", "test", "n_tokens", "depth"),
        "tokens_per_s": each.run.tokens_per_s,
        **fields_of(each, "predicted_per_s", "is_of_machine", "is_of_model"),
    }


def _devices(forecast: Forecast) -> list[dict[str, Any]] | None:
    """Who computes which layers; null where the devices were not measured one by one."""
    shares = forecast.machine.peer_shares(forecast.facts, forecast.rows[0].cache)
    return [asdict(share) for share in shares] or None


def verdict_of(forecast: Forecast) -> str | None:
    return forecast.machine.verdict(forecast.facts, forecast.rows[0].cache)


def _row(row: ForecastRow) -> dict[str, Any]:
    return {
        **fields_of(row.cache, "kv_k", "kv_v"),
        "flash_attn": row.cache.is_flash,
        **fields_of(row, "depth", "batch", "token_s", "bound"),
        "decode_tps": asdict(row.decode),
        "decode_tps_per_user": row.decode.mid / row.batch,
        "prefill_tps": row.prefill.mid,
        "prefill_interval": fields_of(row.prefill, "low", "high"),
        "ttft_s": row.first_token.mid,
        "ttft_interval_s": asdict(row.first_token),
        "memory_bytes": row.memory.total_bytes,
        "memory": asdict(row.memory),
    }


def _speculation(forecast: Forecast) -> dict[str, Any] | None:
    """Null without a draft model. Lookup has no draft cost, and `advice` covers it."""
    if forecast.draft is None:
        return None
    return {
        "draft": forecast.draft.path,
        "rows": [_speculation_row(row) for row in forecast.speculation],
    }


def _head_document(head: HeadForecast) -> dict[str, Any]:
    users = [
        {
            "n_users": each.n_users,
            "break_even_acceptance": each.break_even,
            "acceptance": each.best.acceptance,
            "n_draft": each.best.n_draft,
            "speedup": each.best.speedup,
        }
        for each in head.users
    ]
    return {**fields_of(head, *HEAD), "users": users}


def _speculation_row(row: SpeculationRow) -> dict[str, Any]:
    costs, chances = row.costs, [gain.acceptance for gain in row.best]
    return {
        **fields_of(row, "depth", "batch"),
        "draft_cost": costs.draft_cost,
        "break_even_acceptance": row.break_even,
        "best": [asdict(gain) for gain in row.best],
        "by_length": [
            {
                "n_draft": n,
                "verify": costs.verify(n + 1),
                "speedup": {str(chance): costs.speedup(chance, n) for chance in chances},
            }
            for n in range(1, costs.max_draft + 1)
        ],
    }


def _advice_document(item: Advice) -> dict[str, Any]:
    gain = ("acceptance", "n_draft", "speedup")
    return {
        "use": item.use.name,
        "depth": item.use.depth,
        "batch": item.use.n_sequences,
        **{name: getattr(item.gain, name, None) for name in gain},
        "break_even_acceptance": item.break_even,
        "sentence": item.sentence,
    }
