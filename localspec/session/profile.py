"""Tuned settings: kept by model, machine, engine build and power state, and used where they hold.

Each model and machine has one file in the data folder, with a profile for every engine build and
power state it was tuned for. Where none holds, a line says why and the defaults are used; a flag
takes precedence over the profile's value of its field.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import psutil

from localspec import paths
from localspec.engine.graphics import graphics
from localspec.engine.health import devices_text, engine_fingerprint
from localspec.gguf.reader import fingerprint
from localspec.hardware.detect import power
from localspec.hardware.machine import hardware_key
from localspec.model.kv import cache_type
from localspec.notify import Notify
from localspec.settings import NONE, OWN, Settings, read, words_of, written
from localspec.store import UNREADABLE, write_text

VERSION = 1
MEMORY_TOLERANCE = 0.05
LEAST_BUDGET_S, QUICK_S, MOST_BUDGET_S = 2.0, 10.0, 3600.0
"""What it takes to settle an offer."""
AGAIN = "run `localspec tune` again"


@dataclass(frozen=True, slots=True)
class TunedFor:
    """The conditions that a profile was tuned for; a difference makes it stale."""

    engine: str
    power: str
    memory_bytes: int

    @classmethod
    def now(cls) -> Self:
        """Raises EngineError without an engine."""
        return cls(engine_fingerprint(), power().text, psutil.virtual_memory().total)

    def difference(self, now: "TunedFor") -> str | None:
        """A clause on the first difference, or None."""
        if self.engine != now.engine:
            return "was tuned with another engine build"
        if self.power != now.power:
            return f"was tuned {self.power}, and this is {now.power}"
        if abs(self.memory_bytes / now.memory_bytes - 1) > MEMORY_TOLERANCE:
            was, are = self.memory_bytes / 1e9, now.memory_bytes / 1e9
            return f"was tuned with {was:.1f} GB of memory, and there are {are:.1f}"
        return None


@dataclass(frozen=True, slots=True)
class Profile:
    """Settings that differ from the defaults, by name, and their measured effect.

    `ratio`: (low, mid, high) of decoding speed to the defaults'; `kld`: None where not measured.
    """

    model: str
    taken: str
    n_ctx: int
    goal: str
    circumstances: TunedFor
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    ratio: tuple[float, float, float] = (1.0, 1.0, 1.0)
    kld: float | None = None
    seconds: float = 0.0

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError for another document."""
        low, mid, high = map(float, document["ratio"])
        return cls(
            model=str(document["model"]),
            taken=str(document["taken"]),
            n_ctx=int(document["n_ctx"]),
            goal=str(document["goal"]),
            circumstances=TunedFor(**document["circumstances"]),
            settings=read(document["settings"]),
            ratio=(low, mid, high),
            kld=None if document["kld"] is None else float(document["kld"]),
            seconds=float(document["seconds"]),
        )

    @property
    def text(self) -> str:
        """The settings in words; "the defaults" where there are none."""
        return words_of(self.settings)

    def to_json(self) -> dict[str, Any]:
        """The document in the file."""
        return {**asdict(self), "settings": written(self.settings)}


@dataclass(frozen=True, slots=True)
class FoundProfile:
    """A profile that holds now, or a sentence on why none does, or neither."""

    profile: Profile | None = None
    problem: str | None = None


def find_profile(model: Path) -> FoundProfile:
    """The profile of a model for this machine now. Raises OSError for a missing model."""
    if not any(_folder().glob(f"{fingerprint(model)}-*")):
        return FoundProfile()  # most models have none: what machine this is costs time
    path = _path(model)
    if not path.exists():
        return FoundProfile()
    try:
        kept = _read(path)
    except UNREADABLE as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return FoundProfile(problem=f"the tuned profile {path} cannot be read ({reason}): {AGAIN}")
    now = TunedFor.now()
    differences = [profile.circumstances.difference(now) for profile in kept]
    for profile, difference in zip(kept, differences, strict=True):
        if difference is None:
            return FoundProfile(profile)
    latest = differences[-1] if differences else "is empty"
    return FoundProfile(problem=f"the tuned profile of {model.name} {latest}: {AGAIN}")


def save_profile(model: Path, profile: Profile) -> Path:
    """Keep a profile, in place of one for the same conditions. Returns its file."""
    path = _path(model)
    try:
        kept = _read(path)
    except UNREADABLE:
        kept = []
    others = [old for old in kept if old.circumstances != profile.circumstances]
    document = {"version": VERSION, "profiles": [p.to_json() for p in (*others, profile)]}
    write_text(path, json.dumps(document, indent=1))
    return path


def with_profile(
    model: Path, settings: Settings, given: frozenset[str], notify: Notify
) -> Settings:
    """The settings with a model's tuned ones, except those in `given`.

    `notify` hears which were used, or why an existing profile was not.
    """
    try:
        found = find_profile(model)
    except OSError:
        return settings
    if found.problem:
        notify(f"{found.problem}; the defaults are used")
    if found.profile is None:
        return settings
    tuned = _usable(found.profile, given, notify)
    if not tuned:
        return settings
    used = replace(found.profile, settings=tuned)
    notify(f"tuned {used.taken}: {used.text} (--no-profile leaves it)")
    return replace(settings, **tuned)


_DRAFTING = frozenset({"draft", "draft_max", "spec"})


def _usable(profile: Profile, given: frozenset[str], notify: Notify) -> dict[str, Any]:
    """The profile's settings, without those that a flag or a missing draft rules out."""
    left = set(given)
    draft = profile.settings.get("draft", NONE)
    if draft not in (NONE, OWN) and not Path(draft).exists():
        notify(f"the tuned profile's draft {draft} is not there: without it; {AGAIN}")
        left |= _DRAFTING
    if {"draft", "spec"} & given:
        left |= _DRAFTING
    if "threads" in given:
        left.add("threads_batch")
    left |= _contradicted(profile, given)
    return {name: value for name, value in profile.settings.items() if name not in left}


def _contradicted(profile: Profile, given: frozenset[str]) -> set[str]:
    """A value cache was tuned with the flash attention that it needs: they go together."""
    tuned = Settings(**profile.settings)
    if "flash_attn" in given and cache_type(tuned.kv_v).is_quantized:
        return {"kv_v"}
    if "kv_v" in given and not tuned.attention.is_flash:
        return {"flash_attn"}
    return set()


def _read(path: Path) -> list[Profile]:
    document = json.loads(path.read_text())
    if document["version"] != VERSION:
        raise ValueError(f"version {document['version']}")
    return [Profile.from_json(profile) for profile in document["profiles"]]


def _folder() -> Path:
    folder = paths.data_dir() / "profiles"
    folder.mkdir(exist_ok=True)
    return folder


def _path(model: Path) -> Path:
    devices = devices_text(graphics())
    return _folder() / f"{fingerprint(model)}-{hardware_key(devices)}.json"
