"""The layers of a model: heads, sliding windows, and which of them keep a cache.

A layer that attends stores for each token n_kv_heads keys of `key_size` and values of `value_size`;
with multi-head latent attention (MLA: DeepSeek) one compressed key and no value. A recurrent layer
stores a state whose size does not depend on the context. What the header says of its layers holds
for every architecture, known or not: windows by `attention.sliding_window_pattern`, recurrence by
`attention.recurrent_layers`, `full_attention_interval` or layers without heads of keys. Some facts
follow from the architecture alone and have no metadata key: they are in the tables. Without either
a model counts as a plain transformer with causal attention. Sources: src/llama-arch.cpp,
`load_hparams` in src/llama-model.cpp, src/llama-hparams.cpp, src/llama-kv-cache*.cpp and
src/models/*.cpp of llama.cpp (libllama 0.5.0).
"""

from dataclasses import dataclass

from localspec.gguf.cursor import Array, shown
from localspec.gguf.header import Header


def names_of(text: str) -> frozenset[str]:
    """Of architectures, in one text."""
    return frozenset(text.split())


RECURRENT = names_of("mamba mamba2 rwkv6 rwkv6qwen2 rwkv7 arwkv7")
# Some layers attend and some are recurrent. Which ones: see `layers`.
HYBRID = names_of(
    "jamba falcon-h1 plamo2 granitehybrid lfm2 lfm2moe nemotron_h nemotron_h_moe qwen3next"
    " kimi-linear bailingmoe3 kimi-k3 glm5-next qwen35 qwen35moe qwen4exp deepseek4 minimax-01"
)
# Of these, every n-th layer attends unless the header says which.
FULL_ATTENTION_EVERY = {"minimax-01": 8, "qwen3next": 4, "qwen35": 4, "qwen35moe": 4, "qwen4exp": 4}

# The cache has more in it than keys and values by layer, or layers share it in ways of their own.
UNUSUAL_CACHE = names_of(
    "deepseek32 deepseek4 glm-dsa glm5-next minimax-m3 hy_v4 dots3note qwen4exp hrm_text"
    " graniteswitch"
)

# Layers without attention and without feed-forward have no weights at all (Nemotron Ultra).
SKIPPING = frozenset({"deci"})


@dataclass(frozen=True, slots=True)
class Window:
    """How an architecture lays out sliding windows: all but every `period`-th layer has one.

    `period` is the default for the key `attention.sliding_window_pattern`; None: that key is an
    array, one entry a layer; 0: all layers. `n_tokens` is the default window, None: the key
    `attention.sliding_window` says it, and without that no layer has one; `fixed`: the key only
    says whether. `n_layers`: only models of that many layers have windows at all.
    """

    period: int | None
    dense_first: bool = False
    n_tokens: int | None = None
    fixed: bool = False
    n_layers: int | None = None


WINDOWS: dict[str, Window] = {
    "afmoe": Window(4),
    "cohere2": Window(4),
    "cohere2moe": Window(4, dense_first=True),
    "dots3note": Window(None),
    "exaone-moe": Window(4),
    "exaone4": Window(4, n_tokens=4096, n_layers=64),
    "gemma2": Window(2, n_tokens=4096),
    "gemma3": Window(6),
    "gemma3n": Window(5),
    "gemma4": Window(None),
    "gpt-oss": Window(2),
    "granite_swa": Window(None),
    "laguna": Window(4, dense_first=True),
    "lfm2": Window(0),  # of those layers that attend
    "lfm2moe": Window(0),
    "llama4": Window(4, n_tokens=8192, fixed=True),  # chunks rather than windows
    "maple": Window(None),
    "mellum": Window(4),
    "mimo2": Window(None),
    "muse-glimmer": Window(4),
    "olmo2": Window(4),
    "plamo3": Window(8),
    "smallthinker": Window(4, dense_first=True),
    "spark2_5": Window(None),
    "step35": Window(None),
}


WINDOW, PATTERN = "attention.sliding_window", "attention.sliding_window_pattern"
INTERVAL = "full_attention_interval"
MAX_LAYERS = 512  # LLAMA_MAX_LAYERS
GEMMA3N_CACHED_LAYERS = 20


@dataclass(frozen=True, slots=True)
class Layer:
    """One block. Sizes count numbers of one head; `window_tokens` None: it sees all of the past."""

    n_heads: int
    n_kv_heads: int
    key_size: int
    value_size: int
    window_tokens: int | None
    has_cache: bool
    is_recurrent: bool

    @property
    def attends(self) -> bool:
        """Whether a pass reads cached keys, of its own or of the layer that shares them."""
        return bool(self.n_kv_heads and self.key_size) and (self.has_cache or not self.is_recurrent)

    @property
    def n_keys(self) -> int:
        """Numbers that a token adds to the key cache."""
        return self.n_kv_heads * self.key_size if self.has_cache else 0

    @property
    def n_values(self) -> int:
        return self.n_kv_heads * self.value_size if self.has_cache else 0


def layers_of(header: Header) -> tuple[Layer, ...]:
    """The blocks that a token passes, without those that only predict further tokens (NextN).

    ModelError if there are none, too many, or if an array has not one entry for each.
    """
    n_all = _count(header, "block_count", 0)
    n_loops = _count(header, "num_loops", 1) if header.architecture == "nanbeige" else 1
    n_layers = n_all - header.n_draft_layers
    if not (0 < n_layers <= n_all and 0 < n_loops * n_all <= MAX_LAYERS):
        raise header.fail(
            f"claims {n_all} layers, of which {n_layers} would be used, and 1 to {MAX_LAYERS} are"
            " possible; download or convert it again"
        )
    heads = per_layer(header, "attention.head_count", n_all) or (0,) * n_all
    kv_heads = per_layer(header, "attention.head_count_kv", n_all) or heads
    recurrent = _recurrent(header, kv_heads)
    windows = _windows(header, recurrent, n_layers)
    sizes = _head_sizes(header, next(filter(None, heads), 0))
    cached = _cached(header, recurrent)
    layers = tuple(
        Layer(
            heads[i],
            kv_heads[i],
            *sizes[windows[i] is not None],
            windows[i],
            cached[i],
            recurrent[i],
        )
        for i in range(n_layers)
    )
    return layers * n_loops


def _count(header: Header, name: str, default: int) -> int:
    count = header.own_integer(name)
    return default if count is None else count


def per_layer(header: Header, name: str, n_layers: int) -> tuple[int, ...] | None:
    """A key that is one number for all layers or an array of one for each; None if absent."""
    key = header.own_key(name)
    if not isinstance(header.metadata.get(key), Array):
        number = header.integer(key)
        return None if number is None else (number,) * n_layers
    numbers = header.integers(key) or ()
    if len(numbers) != n_layers:
        raise header.fail(
            f"has {len(numbers)} numbers in {shown(key)} for {n_layers} layers;"
            " download or convert it again"
        )
    return numbers


def _recurrent(header: Header, kv_heads: tuple[int, ...]) -> tuple[bool, ...]:
    name, n_layers = header.architecture, len(kv_heads)
    if name in RECURRENT or name == "falcon-h1":
        return (True,) * n_layers
    given = per_layer(header, "attention.recurrent_layers", n_layers)
    if given is not None:
        return tuple(map(bool, given))
    every = _attends_every(header)
    if every:
        return tuple((i + 1) % every != 0 for i in range(n_layers))
    if name == "deepseek4" or not (name in HYBRID or has_state_keys(header)):
        return (False,) * n_layers
    feed_forward = (0,) * n_layers
    if name.startswith("nemotron_h"):  # its layers either mix tokens or feed forward
        feed_forward = per_layer(header, "feed_forward_length", n_layers) or feed_forward
    return tuple(n == 0 and n_ff == 0 for n, n_ff in zip(kv_heads, feed_forward, strict=True))


def _attends_every(header: Header) -> int | None:
    """Which layers attend where the others are recurrent; None where no interval tells."""
    every = header.own_integer(INTERVAL) or FULL_ATTENTION_EVERY.get(header.architecture)
    is_of_windows = bool(header.own_integer(WINDOW)) and not has_state_keys(header)
    return None if is_of_windows and header.architecture not in HYBRID else every


def has_state_keys(header: Header) -> bool:
    """Whether the header gives the sizes of a recurrent state."""
    kinds = tuple(header.own_key(kind) for kind in ("ssm.", "wkv.", "kda.", "shortconv."))
    return any(key.startswith(kinds) for key in header.metadata)


def _windows(header: Header, recurrent: tuple[bool, ...], n_layers: int) -> list[int | None]:
    """How many tokens each layer looks back, None for all of them."""
    layout = WINDOWS.get(header.architecture) or _layout_of_keys(header)
    if layout is None or layout.n_layers not in (None, n_layers):
        return [None] * n_layers
    n_tokens = header.own_integer(WINDOW)
    if n_tokens is None or (n_tokens and layout.fixed):
        n_tokens = layout.n_tokens
    if not n_tokens:
        return [None] * n_layers
    windowed = _window_pattern(header, layout, n_layers)
    return [n_tokens if windowed[i] and not recurrent[i] else None for i in range(n_layers)]


def _layout_of_keys(header: Header) -> Window | None:
    """Of an architecture without a line in the table. A window without a pattern is no sign: many
    headers have one that no layer uses.
    """
    pattern = header.metadata.get(header.own_key(PATTERN))
    if isinstance(pattern, Array):
        return Window(None)
    if header.own_integer(PATTERN):
        return Window(header.own_integer(PATTERN))
    every = header.own_integer(INTERVAL)
    return Window(every) if every and not has_state_keys(header) else None


def _window_pattern(header: Header, layout: Window, n_layers: int) -> list[bool]:
    key = header.own_key(PATTERN)
    if isinstance(header.metadata.get(key), Array):
        given = [bool(number) for number in header.integers(key) or ()]
        return (given + [False] * n_layers)[:n_layers]
    period = header.integer(key) if layout.period else layout.period
    period = layout.period if period is None else period
    if period is None:
        raise header.fail(
            f"does not say in {shown(key)} which layers look back how far; convert it again"
        )
    dense = 0 if layout.dense_first else period - 1
    return [period == 0 or i % period != dense for i in range(n_layers)]


def _head_sizes(header: Header, n_heads: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Size of a key and of a value, in layers that see everything and in those with a window."""
    if not n_heads:
        return (0, 0), (0, 0)
    even = _count(header, "embedding_length", 0) // n_heads
    key, value = (_count(header, f"attention.{kind}_length", even) for kind in ("key", "value"))
    windowed_key = _count(header, "attention.key_length_swa", key)
    windowed_value = _count(header, "attention.value_length_swa", value)
    if _count(header, "attention.key_length_mla", 0) and _count(
        header, "attention.value_length_mla", 0
    ):
        return (key, 0), (windowed_key, 0)
    return (key, value), (windowed_key, windowed_value)


def _cached(header: Header, recurrent: tuple[bool, ...]) -> list[bool]:
    """Which layers store what they attend to; the last of some models reuse an earlier cache."""
    n_cached = len(recurrent)
    if header.architecture == "gemma3n":
        n_cached = GEMMA3N_CACHED_LAYERS
    else:
        n_cached -= _count(header, "attention.shared_kv_layers", 0)
    attends = header.architecture == "falcon-h1"  # in its recurrent layers, too
    return [i < n_cached and (attends or not recurrent[i]) for i in range(len(recurrent))]
