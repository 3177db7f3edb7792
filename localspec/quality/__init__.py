"""The loss of quality by another weight or cache type, in llama.cpp's own measures.

The windows, the scored half and the sums are those of llama.cpp's `llama-perplexity
--kl-divergence`, so published figures can be compared. `scripts/test --acceptance quality` holds
ours against that program's.
"""

from localspec.quality.divergence import Divergence, Windows, shipped_text, windows_of
from localspec.quality.evaluate import divergence_of, reference_of
from localspec.quality.reference import Reference

__all__ = [
    "Divergence", "Reference", "Windows", "divergence_of", "reference_of", "shipped_text",
    "windows_of",
]  # fmt: skip
