"""The settings of an engine: one frozen value, and one table of its fields.

A field of `Settings` is its row: name, default, help, kind, and what follows from it. Options on
the command line, the sweep of `bench`, tuned profiles, the tuner, `--json` and `export` read
the rows. A new engine option is one row here and its effect in `engine/llama/parameters.py`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, Self, get_args

from localspec.errors import no_such
from localspec.fields import (
    ALL_LAYERS,
    Choice,
    DeviceName,
    Layers,
    ModelName,
    Names,
    Row,
    Switch,
    TemplateName,
    Whole,
    row,
)

FlashAttention = Literal["auto", "on", "off"]
Speculation = Literal["auto", "none", "lookup", "draft", "mtp", "eagle3", "dflash"]
Split = Literal["auto", "memory", "speed"]

CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
MAX_THREADS = 512
"""ggml aborts above it (GGML_MAX_N_THREADS)."""
MAX_DRAFT = 64
NONE = "none"
AUTO = "auto"
OWN = "own"
"""The draft head in a model's own file, in place of a name."""

_CACHE = Choice(CACHE_TYPES, "TYPE")
_SPECULATION = "Speculation"
_ON_OFF = (("1", "on"), ("0", "off"))


@dataclass(frozen=True, slots=True)
class Settings:
    """How a model is loaded and run; the machine and the model decide a None.

    `spec` "auto" picks drafter and length at each step by measured cost and gain; the others draft
    `draft_max` tokens each time (None: 3; for "auto" 16 at most). `ctx` None: 4096 or
    the model's, the smaller; `threads` None: the physical cores. `gpu_layers` below 0: as many as
    fit on the GPUs (`device` names them), but for the experts of the first `cpu_moe` layers. Passes
    of several tokens use `threads_batch` threads (None: `threads`) and micro-batches of `ubatch`.
    """

    draft: str = row(
        "auto",
        "Draft model or head; own: the head in MODEL's file; auto: that, a head beside it, or the"
        " draft that models.toml pairs with MODEL, if it is here.",
        ModelName(), "draft {}", panel=_SPECULATION, is_engine=False, is_swept=False,
    )  # fmt: skip
    spec: Speculation = row(
        "auto", "Drafter; auto: pick the fastest at each step, or none.",
        Choice(get_args(Speculation)), "speculation {}", panel=_SPECULATION, is_engine=False,
    )  # fmt: skip
    draft_max: int | None = row(
        None, "Tokens to draft at once (default 3), or for --spec auto the most (default 16).",
        Whole(1, MAX_DRAFT, is_open=True, hint="use --spec none for no drafts"),
        "drafts of at most {}", panel=_SPECULATION, short="draft", is_engine=False,
    )  # fmt: skip
    draft_device: str = row(
        AUTO, "Device of the draft model; auto: where probes say that it drafts faster.",
        DeviceName(), "the draft on {}", panel=_SPECULATION, is_engine=False, is_loading=True,
        is_swept=False, is_tuned=False,
    )  # fmt: skip
    kv_k: str = row(
        "f16", "Type of the K cache, e.g. q8_0.", _CACHE, "keys {}", short="K",
        aliases=("-ctk", "--cache-type-k"), is_exact=False,
    )  # fmt: skip
    kv_v: str = row(
        "f16", "Type of the V cache.", _CACHE, "values {}", short="V",
        aliases=("-ctv", "--cache-type-v"), is_exact=False,
    )  # fmt: skip
    flash_attn: FlashAttention = row(
        "auto", "Flash attention.", Choice(get_args(FlashAttention), also=_ON_OFF),
        "flash attention {}", short="fa", aliases=("-fa",), is_exact=False,
        is_automatic=True,
    )  # fmt: skip
    ctx: int | None = row(
        None, "Context in tokens. Default: 4096 or the model's, the smaller.",
        Whole(2, 2**31 - 1, is_open=True), "a context of {}", was=("n_ctx",), is_swept=False,
        is_tuned=False,
    )  # fmt: skip
    threads: int | None = row(
        None, "CPU threads. Default: physical cores.", Whole(1, MAX_THREADS, is_open=True),
        "threads {}", short="t", aliases=("-t",), was=("n_threads",), is_automatic=True,
    )  # fmt: skip
    gpu_layers: int = row(
        -1, "Layers on GPUs; auto: as many as fit.", Layers(), "{} layers on GPUs",
        short="ngl", aliases=("-ngl", "--n-gpu-layers"), was=("n_gpu_layers",), is_exact=False,
        is_loading=True,
    )  # fmt: skip
    threads_batch: int | None = row(
        None, "CPU threads for prompts. Default: --threads.", Whole(1, MAX_THREADS, is_open=True),
        "threads for prompts {}", short="tb", aliases=("-tb",), was=("n_threads_batch",),
        is_automatic=True,
    )  # fmt: skip
    ubatch: int = row(
        512, "Tokens of a micro-batch.", Whole(32, 4096), "micro-batches of {}", short="ub",
        aliases=("-ub", "--ubatch-size"), was=("n_batch",), is_exact=False, is_automatic=True,
    )  # fmt: skip
    cpu_moe: int = row(
        0, "Keep the experts of the first N layers on the CPU; 0: those that GPUs do not hold.",
        Whole(0, ALL_LAYERS),
        "experts of {} layers on the CPU", short="ncmoe", aliases=("-ncmoe", "--n-cpu-moe"),
        was=("n_cpu_moe",), is_exact=False, is_loading=True,
    )  # fmt: skip
    mmap: bool = row(
        True, "Map the weights; otherwise read them.", Switch(), "mmap {}",
        aliases=("-mmp",), was=("use_mmap",), is_loading=True, is_automatic=True,
    )  # fmt: skip
    repack: bool = row(
        True, "Repack weights for the CPU's matrix units.", Switch(), "repacking {}",
        was=("extra_buffers",), is_exact=False, is_loading=True, is_automatic=True,
    )  # fmt: skip
    template: str = row(
        "auto", "Chat template: a file, or a family's name, e.g. chatml. auto: the model's own.",
        TemplateName(), "the chat template {}", panel="Prompt", is_engine=False, is_swept=False,
        is_tuned=False,
    )  # fmt: skip
    op_offload: bool = row(
        True, "Let a GPU compute wide batches with weights of the CPU.", Switch(),
        "operations handed to the GPU {}", is_exact=False, is_offered=False,
    )  # fmt: skip
    n_sequences: int = row(
        1, "Sequences that the cache has room for.", Whole(1, 256), "{} sequences",
        is_offered=False,
    )  # fmt: skip
    kv_unified: bool = row(
        False, "One pool of cells for all sequences; passes may differ in width.", Switch(),
        "one pool of cells {}", is_exact=False, is_offered=False,
    )  # fmt: skip
    n_rs_seq: int = row(
        0, "States that a recurrent memory keeps, to roll back to.", Whole(0, 256),
        "{} recurrent states", is_offered=False,
    )  # fmt: skip
    device: tuple[str, ...] = row(
        (), "Devices that share the layers, by the names that `doctor` shows. Default: all GPUs.",
        Names(), "on {}", aliases=("-dev",), is_exact=False, is_loading=True, is_swept=False,
        is_tuned=False,
    )  # fmt: skip
    workers: tuple[str, ...] = row(
        (), "Machines that run `localspec worker`, to share the layers.",
        Names("HOST:PORT[=8GB],..."), "with the workers {}", is_exact=False, is_loading=True,
        is_swept=False, is_tuned=False,
    )  # fmt: skip
    split: Split = row(
        "auto", "Share layers out by free memory, or by speed; auto: what is predicted faster.",
        Choice(get_args(Split)), "layers shared out by {}", is_exact=False, is_loading=True,
        is_swept=False, is_tuned=False,
    )  # fmt: skip
    shares: tuple[str, ...] = row(
        (), "Each device's share of the layers.", Names(), "shares {}", is_exact=False,
        is_loading=True, is_offered=False,
    )  # fmt: skip
    load_mtp: bool = row(
        False, "Load a model's own draft heads.", Switch(), "draft heads {}", is_loading=True,
        is_offered=False,
    )  # fmt: skip

    @classmethod
    def of(cls, **keywords: Any) -> Self:
        """Settings by name. Raises UserError for an unknown name or a wrong value."""
        unknown = next((name for name in keywords if name not in ROWS), None)
        if unknown is not None:
            raise no_such("setting", unknown, (n for n, each in ROWS.items() if each.is_offered))
        return cls(**{name: ROWS[name].checked(value) for name, value in keywords.items()})

    def checked(self) -> Self:
        """The same, in their usual form. Raises UserError for a wrong value."""
        return self.of(**{name: getattr(self, name) for name in ROWS})

    @property
    def attention(self) -> "Attention":
        """Cache types and flash attention."""
        return Attention(self.kv_k, self.kv_v, self.flash_attn)

    def with_attention(self, attention: "Attention") -> Self:
        return replace(self, **asdict(attention))

    @property
    def loading(self) -> "Settings":
        """Only the settings of the loaded weights. Sessions alike in them can share weights."""
        return Settings(**self._where("is_loading"))

    def with_loading(self, loading: "Settings") -> Self:
        return replace(self, **loading._where("is_loading"))

    @property
    def for_engine(self) -> "Settings":
        """Only the settings that the engine reads; the others at their defaults."""
        return Settings(**self._where("is_engine"))

    @property
    def changed(self) -> dict[str, Any]:
        """Settings that differ from their defaults, by name."""
        return {n: value for n in ROWS if (value := getattr(self, n)) != ROWS[n].default}

    def left_open(self, given: frozenset[str]) -> frozenset[str]:
        """Names of those that may be chosen by what is fastest; `given`: chosen by somebody.

        Whoever chooses threads chooses those for prompts, too.
        """
        chosen = given | self.changed.keys()
        chosen |= {"threads_batch"} if "threads" in chosen else frozenset()
        return frozenset(name for name, each in ROWS.items() if each.is_automatic) - chosen

    @property
    def text(self) -> str:
        """Settings that differ from their defaults, in words."""
        return words_of(self.changed)

    def to_json(self) -> dict[str, Any]:
        """Every setting that has a flag, by name; null: none, or open."""
        return written(self._where("is_offered"))

    def _where(self, column: str) -> dict[str, Any]:
        return {name: getattr(self, name) for name, each in ROWS.items() if getattr(each, column)}


@dataclass(frozen=True, slots=True)
class Attention:
    """Types of the K and V cache, and whether the fused kernel reads them."""

    kv_k: str = "f16"
    kv_v: str = "f16"
    flash_attn: FlashAttention = "auto"

    @property
    def is_flash(self) -> bool:
        """Whether flash attention reads it: "auto" counts as on."""
        return self.flash_attn != "off"

    @property
    def is_exact(self) -> bool:
        """Whether both caches are at least as precise as f16."""
        return {self.kv_k, self.kv_v} <= {"f16", "f32"}

    @property
    def text(self) -> str:
        """K/V types and flash attention, in words."""
        return f"{self.kv_k}/{self.kv_v}, flash attention {self.flash_attn}"


ROWS: Mapping[str, Row] = {
    each.name: replace(
        each.metadata["row"],
        name=each.name,
        default=each.default,
        short=each.metadata["row"].short or each.name,
    )
    for each in fields(Settings)
}
"""The table."""
NOW = {old: name for name, each in ROWS.items() for old in each.was}
"""Today's names by those of earlier versions."""


def words_of(values: Mapping[str, Any]) -> str:
    """Settings by name, in words; "the defaults" where there are none."""
    return ", ".join(ROWS[n].text(value) for n, value in values.items()) or "the defaults"


def written(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by name for a document: null is none, or open."""
    return {n: None if (n, value) == ("draft", NONE) else value for n, value in values.items()}


def with_former_names(document: Mapping[str, Any]) -> dict[str, Any]:
    """With every renamed field under its former name too: documents lose no field."""
    former = {old: document[name] for old, name in NOW.items() if name in document}
    return {**document, **former}


def read(document: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by name from a document of this version or an earlier one.

    Raises ValueError for an unknown name or a wrong value.
    """
    values = {NOW.get(name, name): value for name, value in document.items()}
    if values.get("draft", NONE) is None:
        values["draft"] = NONE
    for name, value in values.items():
        if name not in ROWS or not ROWS[name].kind.accepts(value):
            raise ValueError(f"{name} {value!r}")
        values[name] = tuple(value) if isinstance(value, list) else value
    return values
