"""How far each kind of coefficient is believed to vary, in units of a logarithm.

The ridge of the fit holds a coefficient to zero in proportion: a kind that varies little must be
asked for by many runs. Mostly from a search over the leave-one-chip-out error.
"""

DECODE_SCALES = {
    "backend": 0.49, "family": 0.122, "backend family": 0.367, "type": 0.098,
    "backend type": 0.206, "family type": 0.147, "era": 0.12, "backend era": 0.3,
    "family era": 0.21, "backend harness": 0.35, "memory": 0.07, "laptop": 0.2, "bandwidth": 0.052,
    "bandwidth in backend": 0.21, "bandwidth in family": 0.1, "bandwidth by type": 0.1,
    "intensity": 0.1, "intensity in backend": 0.15, "intensity by type": 0.48, "matrix rate": 0.0,
    "matrix rate in backend": 0.0, "state": 0.35,
}  # fmt: skip
PREFILL_SCALES = {
    "backend": 1.4, "family": 1.25, "backend family": 0.056, "type": 0.28, "backend type": 0.3,
    "family type": 0.15, "era": 0.3, "backend era": 0.3, "family era": 0.2, "backend harness": 0.25,
    "memory": 0.1, "laptop": 0.5, "bandwidth": 0.1, "bandwidth in backend": 0.196,
    "bandwidth in family": 0.1, "bandwidth by type": 0.0, "intensity": 0.1,
    "intensity in backend": 0.21, "intensity by type": 0.1, "matrix rate": 0.3,
    "matrix rate in backend": 0.3, "state": 2.0,
}  # fmt: skip
SCALES = {"decode": DECODE_SCALES, "prefill": PREFILL_SCALES}
LAYER_S = {"cuda": 1.225e-5, "metal": 5e-5, "rocm": 8e-5, "vulkan": 1.2e-4, "cpu": 1.4e-4}
"""Overhead of a layer in decoding, from a search over the leave-one-chip-out error."""
