"""What another weight or cache type does to a model's predictions, in upstream's own measures.

The windows, the scored half and the sums are those of `llama-perplexity --kl-divergence` of
llama.cpp, so that figures can be held against published ones; `scripts/check-quality` does.
"""

from localspec.quality.divergence import Divergence, Windows, windows_of
from localspec.quality.evaluate import divergence_of, reference_of
from localspec.quality.published import shipped_text
from localspec.quality.reference import Reference

__all__ = [
    "Divergence", "Reference", "Windows", "divergence_of", "reference_of", "shipped_text",
    "windows_of",
]  # fmt: skip
