"""A forecast as the document that `predict --json` prints; DESIGN.md fixes the names."""

from dataclasses import asdict
from typing import Any

from localspec.model.facts import ModelFacts
from localspec.session.forecast import Forecast, Row, SpeculationRow


def document(forecast: Forecast) -> dict[str, Any]:
    """Plain values; what is not known is null."""
    return {
        "device": _device(forecast),
        "model": _model(forecast.facts),
        "rows": [_row(row) for row in forecast.rows],
        "ceiling_tps": forecast.ceiling_tps,
        "break_even_batch": forecast.break_even_batch,
        "speculation": _speculation(forecast),
        "advice": [_advice_document(forecast, i) for i in range(len(forecast.advice))],
        "quants": [asdict(quant) for quant in forecast.quants] or None,
        "notes": list(forecast.machine.notes),
    }


def _device(forecast: Forecast) -> dict[str, Any]:
    machine = forecast.machine
    return {
        "name": machine.name,
        "bandwidth_bytes_per_s": machine.bandwidth_bytes_per_s,
        "flops_per_s": machine.flops_per_s,
        "memory_bytes": machine.memory_bytes,
        "free_bytes": machine.free_bytes,
        "source": machine.source,
        "rates": machine.rates_source,
    }


def _model(facts: ModelFacts) -> dict[str, Any]:
    return {
        "path": facts.path,
        "name": facts.name,
        "architecture": facts.architecture,
        "file_type": facts.file_type,
        "n_params": facts.n_params,
        "active_params": facts.active_params,
        "n_layers": facts.n_layers,
        "n_ctx_train": facts.n_ctx_train,
        "weight_bytes": facts.weight_bytes,
        "streamed_bytes": facts.streamed_bytes,
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "kv_k": row.cache.type_k.name.lower(),
        "kv_v": row.cache.type_v.name.lower(),
        "flash_attn": row.cache.flash,
        "depth": row.depth,
        "batch": row.batch,
        "decode_tps": asdict(row.decode),
        "decode_tps_per_user": row.decode.mid / row.batch,
        "token_s": row.token_s,
        "prefill_tps": row.prefill.mid,
        "prefill_interval": {"low": row.prefill.low, "high": row.prefill.high},
        "ttft_s": row.first_token_s,
        "memory_bytes": row.memory.total_bytes,
        "memory": asdict(row.memory),
        "bound": row.bound,
    }


def _speculation(forecast: Forecast) -> dict[str, Any] | None:
    """Null without a draft model: look-up then has no draft cost, and `advice` covers it."""
    if forecast.draft is None:
        return None
    return {
        "draft": forecast.draft.path,
        "rows": [_speculation_row(row) for row in forecast.speculation],
    }


def _speculation_row(row: SpeculationRow) -> dict[str, Any]:
    lengths = range(1, row.costs.max_draft + 1)
    return {
        "depth": row.depth,
        "batch": row.batch,
        "draft_cost": row.costs.draft_cost,
        "break_even_acceptance": row.break_even,
        "best": [asdict(gain) for gain in row.best],
        "by_length": [
            {
                "n_draft": n,
                "verify": row.costs.verify(n + 1),
                "speedup": {
                    str(gain.acceptance): row.costs.speedup(gain.acceptance, n) for gain in row.best
                },
            }
            for n in lengths
        ],
    }


def _advice_document(forecast: Forecast, i: int) -> dict[str, Any]:
    item = forecast.advice[i]
    return {
        "use": item.use.name,
        "depth": item.use.depth,
        "batch": item.use.n_sequences,
        "acceptance": item.gain.acceptance if item.gain else None,
        "n_draft": item.gain.n_draft if item.gain else None,
        "speedup": item.gain.speedup if item.gain else None,
        "break_even_acceptance": item.break_even,
        "sentence": item.sentence,
    }
