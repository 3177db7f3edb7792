"""What the tuner chooses: how weights are loaded, how attention is kept, how many threads work."""

from dataclasses import dataclass, field, replace
from typing import Self

from localspec.engine.base import EngineConfig, FlashAttention


@dataclass(frozen=True, slots=True)
class Attention:
    """How the cache is kept and read."""

    kv_k: str = "f16"
    kv_v: str = "f16"
    flash: FlashAttention = "auto"

    @property
    def text(self) -> str:
        """K/V types and what flash attention is, short."""
        return f"{self.kv_k}/{self.kv_v}, flash attention {self.flash}"

    @property
    def is_exact(self) -> bool:
        """Whether the cache holds what f16 would, or more."""
        return {self.kv_k, self.kv_v} <= {"f16", "f32"}


@dataclass(frozen=True, slots=True)
class Loading:
    """What only loading the weights again can change; `n_gpu_layers` < 0: all of them."""

    n_gpu_layers: int = -1
    n_cpu_moe: int = 0
    use_mmap: bool = True
    repack: bool = True

    @property
    def text(self) -> str:
        parts = [
            "" if self.repack else "weights not repacked",
            "" if self.use_mmap else "no mmap",
            f"{self.n_gpu_layers} layers on the GPU" if self.n_gpu_layers > 0 else "",
            f"experts of {self.n_cpu_moe} layers on the CPU" if self.n_cpu_moe else "",
        ]
        return ", ".join(part for part in parts if part) or "as by default"


@dataclass(frozen=True, slots=True)
class Setting:
    """One point of the search."""

    n_threads: int
    n_threads_batch: int
    n_batch: int = 512
    attention: Attention = field(default_factory=Attention)
    loading: Loading = field(default_factory=Loading)

    @classmethod
    def of(cls, config: EngineConfig) -> Self:
        """What an engine's configuration amounts to."""
        return cls(
            n_threads=config.n_threads,
            n_threads_batch=config.n_threads_batch or config.n_threads,
            n_batch=config.n_batch,
            attention=Attention(config.kv_k, config.kv_v, config.flash_attn),
            loading=Loading(
                config.n_gpu_layers, config.n_cpu_moe, config.use_mmap, config.use_extra_buffers
            ),
        )

    def applied(self, config: EngineConfig) -> EngineConfig:
        """The configuration with these settings."""
        return replace(
            config,
            n_threads=self.n_threads,
            n_threads_batch=self.n_threads_batch,
            n_batch=self.n_batch,
            kv_k=self.attention.kv_k,
            kv_v=self.attention.kv_v,
            flash_attn=self.attention.flash,
            n_gpu_layers=self.loading.n_gpu_layers,
            n_cpu_moe=self.loading.n_cpu_moe,
            use_mmap=self.loading.use_mmap,
            use_extra_buffers=self.loading.repack,
        )

    def with_attention(self, attention: Attention) -> Self:
        return replace(self, attention=attention)

    @property
    def text(self) -> str:
        threads = f"{self.n_threads} thread{'s' * (self.n_threads != 1)}"
        return f"{self.attention.text}, {threads}"
