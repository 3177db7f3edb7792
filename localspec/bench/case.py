"""A case: an engine's settings and the work that it gets.

Two cases do the same work if their models, lengths, depths and texts are equal. Their speeds may
then be compared, whatever their settings.

Drafting on random tokens means nothing, so a work may ask real questions. They come from JSON lines
of {"category": ..., "turns": [...]} (Spec-Bench's form; the first turn is asked) or
{"prompt": ...}; the default category is "text".
"""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from localspec.errors import UserError
from localspec.model.kv import padded_cells
from localspec.session.session_config import SessionConfig
from localspec.settings import NOW, ROWS, Settings, read, with_former_names
from localspec.store import document_of, read_text, value_of

CURVE_WIDTHS = (1, 2, 3, 4, 5, 6, 8, 9, 12, 16)
"""Widths of the verification curve: kernels change at multiples of 4 and beyond 8."""


@dataclass(frozen=True, slots=True)
class Work:
    """Lengths in tokens; 0 is not measured.

    The engine reads `n_prompt` behind `depth` cached tokens, then generates `n_gen` at that depth,
    both for `batch` sequences at once. With `prompts`, a file of real questions, it answers the
    first `per_category` of each category instead, with `n_gen` tokens each. `widths`: the passes
    that the verification curve times.
    """

    n_prompt: int = 512
    n_gen: int = 128
    depth: int = 0
    batch: int = 1
    prompts: Path | None = None
    per_category: int = 3
    widths: tuple[int, ...] = ()

    @property
    def n_ctx(self) -> int | None:
        """Cells that a sequence needs, in whole blocks; None where real texts decide."""
        if self.prompts:
            return None
        needed = self.depth + max(self.n_prompt, self.n_gen + 1, *self.widths, 1)
        return padded_cells(needed)

    @property
    def text(self) -> str:
        """In llama-bench's words: pp512+tg128 @ d1024."""
        if self.prompts:
            return f"{self.prompts.stem} tg{self.n_gen}"
        parts = (("pp", self.n_prompt), ("tg", self.n_gen), ("v", max(self.widths, default=0)))
        tests = "+".join(f"{name}{n}" for name, n in parts if n)
        depth = f" @ d{self.depth}" if self.depth else ""
        return tests + depth + (f" x {self.batch}" if self.batch > 1 else "")


@dataclass(frozen=True, slots=True)
class Case:
    """One row of a sweep."""

    config: SessionConfig
    work: Work

    @property
    def session_config(self) -> SessionConfig:
        """The session to load: its context is as long as the work needs."""
        return self.config.with_settings(ctx=self.settings.ctx or self.work.n_ctx)

    @property
    def settings(self) -> Settings:
        """The engine's settings."""
        return self.config.settings

    @property
    def text(self) -> str:
        """For people."""
        return f"{self.config.model.stem} {self.work.text}, {self.setting_text}"

    @property
    def setting_text(self) -> str:
        """The engine's settings, in a line."""
        shown = self.settings
        words = [
            f"kv {shown.kv_k}" + (f"/{shown.kv_v}" if shown.kv_v != shown.kv_k else ""),
            f"fa {shown.flash_attn}",
            f"t {shown.threads or 'auto'}",
        ]
        words += [
            f"{ROWS[name].short} {value}"
            for name, value in shown.changed.items()
            if name not in _OF_THEIR_OWN and ROWS[name].is_swept
        ]
        if shown.spec != "none" and not self.work.widths:
            words.append(shown.spec + (f" {shown.draft_max}" if shown.draft_max else ""))
        return ", ".join(words)

    def to_json(self) -> dict[str, Any]:
        config = {"model": str(self.config.model), **self.settings.to_json()}
        return {"config": with_former_names(config), "work": document_of(self.work)}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError for any other document."""
        config = document["config"]
        known = {name: value for name, value in config.items() if name in ROWS or name in NOW}
        model = SessionConfig(Path(config["model"]), Settings(**read(known)))
        return cls(model, value_of(Work, document["work"]))


_OF_THEIR_OWN = frozenset({"kv_k", "kv_v", "flash_attn", "threads", "spec", "draft_max"})
"""Settings that a case's text always shows, or shows in other words."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question."""

    category: str
    text: str


def read_prompts(path: Path, per_category: int) -> list[Prompt]:
    """The first `per_category` of each category, in order. UserError where there is none."""
    lines = read_text(path, f"--prompts {path}").splitlines()
    taken: Counter[str] = Counter()
    prompts: list[Prompt] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        prompt = _prompt(path, number, line)
        if taken[prompt.category] < per_category:
            taken[prompt.category] += 1
            prompts.append(prompt)
    if not prompts:
        raise UserError(
            f'--prompts {path} has no line such as {{"prompt": "Why is the sky blue?"}}'
        )
    return prompts


def _prompt(path: Path, number: int, line: str) -> Prompt:
    try:
        document: Any = json.loads(line)
        turns = document.get("turns")
        text = turns[0] if turns else document["prompt"]
        if not isinstance(text, str) or not text.strip():
            raise ValueError
        return Prompt(str(document.get("category", "text")), text)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(
            f'--prompts {path}, line {number}: not {{"category": ..., "turns": [...]}} or'
            ' {"prompt": ...}'
        ) from error
