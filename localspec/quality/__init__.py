"""The loss of quality by another weight or cache type, in llama.cpp's own measures.

The windows, the scored half and the sums are those of llama.cpp's `llama-perplexity
--kl-divergence`, so published figures can be compared. `scripts/test --acceptance quality` holds
ours against that program's.
"""
