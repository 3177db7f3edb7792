"""Tuned settings: kept by model, machine, engine build and power state, and used where they hold.

One file a model and machine, in the data folder, with a profile for each engine build and power
state that was tuned for. What does not hold any more is said in a line, and the defaults are used;
a flag of the user's always goes before the profile's value of that field.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self, get_args

import psutil

from localspec import paths
from localspec.engine.base import FlashAttention
from localspec.engine.health import engine_fingerprint
from localspec.hardware.machine import hardware_key, power
from localspec.model.facts import cache_type
from localspec.model.identity import fingerprint
from localspec.model.kv import CACHE_TYPES
from localspec.notify import Notify
from localspec.session.config import SessionConfig
from localspec.store import UNREADABLE, write_text

VERSION = 1
MEMORY_TOLERANCE = 0.05
AGAIN = "run `localspec tune` again"


_COUNTS = ("n_threads", "n_threads_batch", "n_batch", "n_cpu_moe", "draft_max")
_FLAGS = ("use_mmap", "repack")
_CHOICES: dict[str, tuple[str, ...]] = {
    "flash_attn": get_args(FlashAttention),
    "spec": ("auto", "none", "lookup", "draft"),
    "kv_k": tuple(CACHE_TYPES),
    "kv_v": tuple(CACHE_TYPES),
}
_WORDS = {
    "kv_k": "keys {}", "kv_v": "values {}", "flash_attn": "flash attention {}",
    "n_threads": "threads {}", "n_threads_batch": "threads for prompts {}",
    "n_batch": "micro-batches of {}", "n_gpu_layers": "{} layers on the GPU",
    "n_cpu_moe": "experts of {} layers on the CPU", "use_mmap": "mmap {}", "repack": "repacking {}",
    "spec": "speculation {}", "draft": "draft {}", "draft_max": "drafts of at most {}",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TunedFor:
    """What a profile holds for; where one of them differs, it is stale."""

    engine: str
    power: str
    memory_bytes: int

    @classmethod
    def now(cls) -> Self:
        """Raises EngineError without an engine."""
        return cls(engine_fingerprint(), power().text, psutil.virtual_memory().total)

    def difference(self, now: "TunedFor") -> str | None:
        """A clause on what is not as it was."""
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
    """Fields of `SessionConfig` that differ from the defaults, and what they came to.

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
        """Raises KeyError, TypeError or ValueError where it is none."""
        settings = dict(document["settings"])
        for name, value in settings.items():
            if not _is_valid(name, value):
                raise ValueError(f"{name} {value!r}")
        low, mid, high = map(float, document["ratio"])
        return cls(
            model=str(document["model"]),
            taken=str(document["taken"]),
            n_ctx=int(document["n_ctx"]),
            goal=str(document["goal"]),
            circumstances=TunedFor(**document["circumstances"]),
            settings=settings,
            ratio=(low, mid, high),
            kld=None if document["kld"] is None else float(document["kld"]),
            seconds=float(document["seconds"]),
        )

    @property
    def text(self) -> str:
        """The settings in words; "the defaults" where there are none."""
        words = [_WORDS[name].format(_shown(value)) for name, value in self.settings.items()]
        return ", ".join(words) or "the defaults"


@dataclass(frozen=True, slots=True)
class FoundProfile:
    """A profile that holds now, or a sentence on why there is none that does, or neither."""

    profile: Profile | None = None
    problem: str | None = None


def find_profile(model: Path) -> FoundProfile:
    """The profile of a model for this machine as it is now. Raises OSError for no such model."""
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
    """Keep a profile, in place of one for the same circumstances; where it is kept."""
    path = _path(model)
    try:
        kept = _read(path)
    except UNREADABLE:
        kept = []
    others = [old for old in kept if old.circumstances != profile.circumstances]
    document = {"version": VERSION, "profiles": [asdict(p) for p in (*others, profile)]}
    write_text(path, json.dumps(document, indent=1))
    return path


def with_profile(config: SessionConfig, given: frozenset[str], notify: Notify) -> SessionConfig:
    """The configuration with a tuned profile's fields, but those in `given`.

    `talk` hears in a line what was used, or why a profile that is there was not.
    """
    try:
        found = find_profile(config.model)
    except OSError:
        return config
    if found.problem:
        notify(f"{found.problem}; the defaults are used")
    if found.profile is None:
        return config
    settings = _usable(found.profile, given, notify)
    if not settings:
        return config
    used = replace(found.profile, settings=settings)
    notify(f"tuned {used.taken}: {used.text} (--no-profile leaves it)")
    if settings.get("draft"):
        settings["draft"] = Path(settings["draft"])
    return replace(config, **settings)


def _usable(profile: Profile, given: frozenset[str], notify: Notify) -> dict[str, Any]:
    """The profile's fields that neither a flag nor the state of things contradicts."""
    settings = {name: value for name, value in profile.settings.items() if name not in given}
    if settings.get("draft") and not Path(settings["draft"]).exists():
        notify(f"the tuned profile's draft {settings['draft']} is not there: without it; {AGAIN}")
        for name in ("draft", "draft_max", "spec"):
            settings.pop(name, None)
    if {"draft", "spec"} & given:
        for name in ("draft", "draft_max", "spec"):
            settings.pop(name, None)
    if "n_threads" in given:
        settings.pop("n_threads_batch", None)
    return _without_contradiction(settings, profile, given)


def _without_contradiction(
    settings: dict[str, Any], profile: Profile, given: frozenset[str]
) -> dict[str, Any]:
    """A value cache was tuned with the flash attention that it needs: they go together."""
    quantized = cache_type(str(profile.settings.get("kv_v", "f16"))).is_quantized
    if "flash_attn" in given and quantized:
        settings.pop("kv_v", None)
    if "kv_v" in given and profile.settings.get("flash_attn") == "off":
        settings.pop("flash_attn", None)
    return settings


def _is_valid(name: str, value: Any) -> bool:
    if name in _CHOICES:
        return value in _CHOICES[name]
    if name in _FLAGS:
        return isinstance(value, bool)
    if name == "draft":
        return value is None or isinstance(value, str)
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return is_number and (name == "n_gpu_layers" or (name in _COUNTS and 0 < value < 1 << 20))


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None:
        return "none"
    return Path(value).name if isinstance(value, str) and "/" in value else str(value)


def _read(path: Path) -> list[Profile]:
    document = json.loads(path.read_text())
    if document["version"] != VERSION:
        raise ValueError(f"version {document['version']}")
    return [Profile.from_json(profile) for profile in document["profiles"]]


def _path(model: Path) -> Path:
    folder = paths.data_dir() / "profiles"
    folder.mkdir(exist_ok=True)
    return folder / f"{fingerprint(model)}-{hardware_key()}.json"
