"""What is measured: an engine's settings and the work that it is given.

Two cases do the same work if their models, lengths, depths and texts are the same; then their
speeds may be compared, whatever their settings.
"""

from collections.abc import Set
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from localspec.session.config import SessionConfig
from localspec.settings import NOW, ROWS, Settings, read, with_former_names

CURVE_WIDTHS = (1, 2, 3, 4, 5, 6, 8, 9, 12, 16)
"""Of the verification curve; kernels change at multiples of 4 and behind 8."""
CELLS = 256
"""Contexts are padded to whole blocks of it, as llama.cpp does itself."""


@dataclass(frozen=True, slots=True)
class Work:
    """Lengths in tokens.

    `n_prompt` are read with `depth` cached ones before them, then `n_gen` are generated at that
    `depth`, each time for `batch` sequences at once; 0: not measured. With `prompts`, a file of
    real questions, the first `per_category` of every category are answered instead, `n_gen` tokens
    each. `widths`: of passes that are timed for the verification curve.
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
        """Cells that a sequence needs, in whole blocks; None: real texts decide."""
        if self.prompts:
            return None
        needed = self.depth + max(self.n_prompt, self.n_gen + 1, *self.widths, 1)
        return -(-needed // CELLS) * CELLS

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
        """What is loaded for it: a context as long as the work needs."""
        return self.config.with_settings(ctx=self.settings.ctx or self.work.n_ctx)

    @property
    def settings(self) -> Settings:
        """How the engine is set."""
        return self.config.settings

    @property
    def text(self) -> str:
        """For people."""
        return f"{self.config.model.stem} {self.work.text}, {self.setting_text}"

    @property
    def setting_text(self) -> str:
        """How the engine is set, in a line."""
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
        work = {
            name: str(part) if isinstance(part, Path) else list(part) if name == "widths" else part
            for name, part in asdict(self.work).items()
        }
        return {"config": with_former_names(config), "work": work}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError where it is none."""
        config, work = document["config"], dict(document["work"])
        work["prompts"] = Path(work["prompts"]) if work.get("prompts") else None
        work["widths"] = tuple(work.get("widths", ()))
        return cls(
            config=SessionConfig(
                Path(config["model"]), Settings(**read(_known(config, _SETTINGS)))
            ),
            work=Work(**_known(work, {field.name for field in fields(Work)})),
        )


_OF_THEIR_OWN = frozenset({"kv_k", "kv_v", "flash_attn", "threads", "spec", "draft_max"})
"""Settings that a case's text always has, or has in other words."""
_SETTINGS = ROWS.keys() | NOW.keys()


def _known(document: dict[str, Any], names: Set[str]) -> dict[str, Any]:
    """Only fields that this version has: what a newer one added is left to its default."""
    return {name: value for name, value in document.items() if name in names}
