"""Counts of a server's life, and their text for Prometheus; llama.cpp's names where they are equal.

The engine's thread adds; any other may read, because each count is one number.
"""

from dataclasses import dataclass, field

from localspec.serve.messages import Account

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper borders of the bins of a histogram."""


@dataclass(slots=True)
class Histogram:
    """Seconds, in bins."""

    counts: list[int] = field(default_factory=lambda: [0] * len(SECONDS))
    n: int = 0
    total_s: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.n += 1
        self.total_s += seconds
        for i, border in enumerate(SECONDS):
            self.counts[i] += seconds <= border

    def lines(self, name: str, help_: str) -> list[str]:
        """As Prometheus reads it."""
        pairs = zip(SECONDS, self.counts, strict=True)
        return [
            *_head(name, help_, "histogram"),
            *(f'{name}_bucket{{le="{border:g}"}} {count}' for border, count in pairs),
            f'{name}_bucket{{le="+Inf"}} {self.n}',
            f"{name}_sum {self.total_s:.6f}",
            f"{name}_count {self.n}",
        ]


@dataclass(slots=True)
class Metrics:
    """What was asked and answered, and how the passes went."""

    n_done: int = 0
    n_failed: int = 0
    n_refused: int = 0
    n_aborted: int = 0
    n_passes: int = 0
    n_rows: int = 0
    n_prompt: int = 0
    n_cached: int = 0
    n_predicted: int = 0
    prompt_s: float = 0.0
    predicted_s: float = 0.0
    n_drafted: int = 0
    n_accepted: int = 0
    queue: Histogram = field(default_factory=Histogram)
    first_token: Histogram = field(default_factory=Histogram)

    def add(self, account: Account) -> None:
        """Count a reply that is done."""
        timings, stats = account.timings, account.stats
        self.n_done += 1
        self.n_prompt += timings.n_prefilled
        self.n_cached += account.n_cached
        self.n_predicted += account.n_tokens
        self.prompt_s += timings.prefill_s or 0.0
        self.predicted_s += timings.decode_s or 0.0
        self.n_drafted += stats.drafted
        self.n_accepted += stats.accepted
        self.queue.add(account.queued_s)
        if timings.ttft_s is not None:
            self.first_token.add(timings.ttft_s)

    def text(self, n_running: int, n_waiting: int) -> str:
        """Of all of them, and of the requests that are here now."""
        counters = {
            "llamacpp:prompt_tokens_total": (self.n_prompt, "Prompt tokens evaluated."),
            "llamacpp:prompt_tokens_cached_total": (self.n_cached, "Prompt tokens reused."),
            "llamacpp:prompt_seconds_total": (self.prompt_s, "Seconds of prompts."),
            "llamacpp:tokens_predicted_total": (self.n_predicted, "Tokens of replies."),
            "llamacpp:tokens_predicted_seconds_total": (self.predicted_s, "Seconds of replies."),
            "llamacpp:n_decode_total": (self.n_passes, "Passes of the model."),
            "llamacpp:spec_decode_num_draft_tokens_total": (self.n_drafted, "Tokens drafted."),
            "llamacpp:spec_decode_num_accepted_tokens_total": (self.n_accepted, "And accepted."),
            "localspec:pass_rows_total": (self.n_rows, "Rows that the passes evaluated."),
            "localspec:requests_done_total": (self.n_done, "Requests answered."),
            "localspec:requests_failed_total": (self.n_failed, "Requests that failed."),
            "localspec:requests_refused_total": (self.n_refused, "Requests refused under load."),
            "localspec:requests_aborted_total": (self.n_aborted, "Requests left by the client."),
        }
        gauges = {
            "llamacpp:requests_processing": (n_running, "Requests that run."),
            "llamacpp:requests_deferred": (n_waiting, "Requests that wait."),
        }
        lines: list[str] = []
        for kind, values in (("counter", counters), ("gauge", gauges)):
            for name, (value, help_) in values.items():
                lines += [*_head(name, help_, kind), f"{name} {value:g}"]
        lines += self.queue.lines("localspec:queue_seconds", "Seconds before a request ran.")
        lines += self.first_token.lines("localspec:first_token_seconds", "To the first token.")
        return "\n".join(lines) + "\n"


def _head(name: str, help_: str, kind: str) -> list[str]:
    return [f"# HELP {name} {help_}", f"# TYPE {name} {kind}"]
