"""What the notes of a published run say: "key=value" and words between semicolons."""

import re
from functools import cached_property

from localspec.prediction.conditions import cache_class

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]


class Notes:
    """Of one row."""

    def __init__(self, text: str) -> None:
        self.text = text
        pairs = (part.strip().partition("=") for part in text.split(";"))
        self._known = {key.strip(): value.strip() for key, _, value in pairs}

    def get(self, key: str) -> str:
        """Empty for what is not there."""
        return self._known.get(key, "")

    @property
    def n_devices(self) -> float:
        if re.search(r"\bdual gpu\b|\b2 gpus where", self.text, re.IGNORECASE):
            return 2
        return number(self.get("n_gpu")) or 1

    @property
    def n_gpu_layers(self) -> float | None:
        return number(self.get("ngl"))

    @property
    def is_mixture(self) -> bool:
        return (self.get("moe") or "0") != "0"

    @property
    def is_speculative(self) -> bool:
        said = f"{self.get('kv')} {self.get('test name')} {self.text}".lower()
        return self.get("spec") == "1" or bool(re.search(r"\b(spec|mtp|ngram|draft|eagle)-", said))

    @property
    def is_partly_offloaded(self) -> bool:
        """Also where nothing but the file's size says so."""
        return bool(re.search(r"on the CPU|larger than the card|n-?cpu-?moe|--cpu-moe", self.text))

    @property
    def cache(self) -> tuple[str, bool]:
        """The type of keys, or of values where only those are quantized, and whether attention is
        fused; today's engines fuse it unless told."""
        keys, values = self.cache_types
        return cache_class(keys, values), self.get("fa") != "0"

    @property
    def cache_types(self) -> tuple[str, str]:
        """Of keys and of values."""
        keys = (self.get("ctk") or "f16").lower()
        return keys, (self.get("ctv") or keys).lower()

    @property
    def prompt_tokens(self) -> float:
        return number(self.get("prompt_tokens")) or 0.0

    @property
    def memory_gb(self) -> float | None:
        found = re.search(r"(?:^|; )(\d+) GB(?:$|;)", self.text)
        return float(found[1]) if found else None

    @property
    def n_threads(self) -> float | None:
        return number(self.get("t"))

    @property
    def micro_batch(self) -> int | None:
        found = number(self.get("ub"))
        return round(found) if found else None

    @property
    def power_limit_w(self) -> float | None:
        found = re.search(r"(\d+) W of \d+ W", self.text)
        return float(found[1]) if found else None

    @cached_property
    def month(self) -> str | None:
        """ "2026-04"; None where no date is said."""
        found = re.search(r"\b(20[12]\d)-?(0[1-9]|1[0-2])(?!\d\d?\d?\d?\.)", self.text)
        if found:
            return f"{found[1]}-{found[2]}"
        words = re.search(r"\b([A-Z][a-z]{2})[a-z]* (20[12]\d)\b", self.text)
        if words and words[1].lower() in _MONTHS:
            return f"{words[2]}-{_MONTHS.index(words[1].lower()) + 1:02}"
        return None

    def source_of(self, text: str) -> str:
        """Who measured: a repository, a page or a thread, whatever file of it."""
        return re.split(r"@| results| README| \(|\?", text)[0].strip() or "unnamed"


def number(text: str | None) -> float | None:
    """The number that a cell begins with; thousands may be set off by commas."""
    found = re.match(r"~?(\d[\d,]*(?:\.\d+)?|\.\d+)", text or "")
    return float(found[1].replace(",", "")) if found else None
