"""How far each kind of column is believed to vary, in units of a logarithm.

The ridge of the fit holds a column to zero in proportion: a kind that varies little must be asked
for by many runs. From a search over the errors of runs whose chip and source were left out.
"""

DECODE_SCALES = {
    "attention by group of quantized cache": 0.5,
    "attention by size of quantized cache": 0.7, "habit, attention by driver": 0.5,
    "habit, type by driver": 0.2, "habit, driver": 0.3, "convolution": 0.1,
    "convolution in backend": 0.1, "launches of convolution": 0.5,
    "launches of convolution in backend": 0.3,
    "age in backend": 0.15, "moe by age": 0.15, "hybrid by age": 0.15, "mla by age": 0.15,
    "gemma by age": 0.1, "launches by age": 0.3, "attention by age": 0.3, "experts by age": 0.15,
    "attention by depth": 0.3, "attention by depth in backend": 0.2,
    "moe": 0.1, "hybrid": 0.1, "mla": 0.1, "gemma": 0.1, "habit, method anywhere": 0.15,
    "habit, launches by method anywhere": 0.3, "habit, state anywhere": 0.5,
    "attention": 1, "attention by cache": 0.4, "attention by group": 1.0,
    "attention by group in backend": 0.5, "attention in backend": 0.5, "attention in family": 0.3,
    "attention of gemma": 0.3, "attention of gemma in backend": 0.2, "attention of hybrid": 0.3,
    "attention of hybrid in backend": 0.2, "attention of mla": 1.5,
    "attention of mla in backend": 0.7, "attention, not fused": 0.5, "backend": 0.588,
    "backend era": 0.252, "backend family": 0.44, "backend type": 0.247, "bandwidth": 0.0624,
    "bandwidth in backend": 0.252, "era": 0.1, "experts": 0.3, "experts by type": 0.1,
    "experts in backend": 0.2, "experts in family": 0.1, "family": 0.146, "family type": 0.176,
    "gemma in backend": 0.1, "habit, launches by method": 0.5, "habit, library": 1,
    "habit, method": 0.2, "habit, source": 0.15, "habit, state": 0.5, "hybrid in backend": 0.1,
    "intensity": 0.12, "intensity by type": 0.45, "intensity in backend": 0.18, "laptop": 0.2,
    "launches": 0.4, "launches in backend": 0.49, "launches in era": 0.5, "launches in family": 0.3,
    "launches of gemma": 0.5, "launches of gemma in backend": 0.3, "launches of hybrid": 0.5,
    "launches of hybrid in backend": 0.167, "launches of mla": 0.5,
    "launches of mla in backend": 0.3, "launches of moe": 0.5, "launches of moe in backend": 0.3,
    "memory": 0.084, "mla in backend": 0.1, "moe in backend": 0.1, "moe in era": 0.0556,
    "type": 0.118, "width": 0.06, "width in backend": 0.06,
}  # fmt: skip
PREFILL_SCALES = {
    "attention by group of quantized cache": 0.3,
    "attention by size of quantized cache": 0.5, "habit, attention by driver": 0.7,
    "habit, type by driver": 0.5, "habit, driver": 0.5, "convolution": 0.1,
    "convolution in backend": 0.1, "launches of convolution": 0.5,
    "launches of convolution in backend": 0.3,
    "age in backend": 0.15, "moe by age": 0.15, "hybrid by age": 0.15, "mla by age": 0.15,
    "gemma by age": 0.1, "launches by age": 0.3, "attention by age": 0.3, "experts by age": 0.15,
    "attention by depth": 1.0, "attention by depth in backend": 0.3,
    "moe": 0.1, "hybrid": 0.1, "mla": 0.1, "gemma": 0.1, "habit, method anywhere": 0.15,
    "habit, state anywhere": 0.5,
    "attention": 1.8, "attention by cache": 0.167, "attention by group": 1.0,
    "attention by group in backend": 0.5, "attention in backend": 0.5, "attention in family": 0.3,
    "attention of gemma": 0.3, "attention of gemma in backend": 0.2, "attention of hybrid": 0.3,
    "attention of hybrid in backend": 0.2, "attention of mla": 1.5,
    "attention of mla in backend": 0.7, "attention, not fused": 0.5, "backend": 0.661,
    "backend era": 0.2, "backend family": 0.0524, "backend type": 0.255, "bandwidth": 0.085,
    "bandwidth in backend": 0.167, "era": 0.1, "experts": 0.3, "experts by type": 0.1,
    "experts in backend": 0.2, "experts in family": 0.1, "family": 1.06, "family type": 0.23,
    "gemma in backend": 0.0556, "habit, launches by method": 0.5, "habit, library": 0.556,
    "habit, method": 0.2, "habit, source": 0.15, "habit, state": 0.5, "hybrid in backend": 0.1,
    "intensity": 0.085, "intensity by type": 0.085, "intensity in backend": 0.178, "laptop": 0.2,
    "launches": 0.556, "launches in backend": 0.7, "launches in era": 0.5,
    "launches in family": 0.3, "launches of gemma": 0.5, "launches of gemma in backend": 0.3,
    "launches of hybrid": 0.5, "launches of hybrid in backend": 0.3, "launches of mla": 0.5,
    "launches of mla in backend": 0.3, "launches of moe": 0.5, "launches of moe in backend": 0.3,
    "matrix rate": 0.3, "matrix rate in backend": 0.3, "memory": 0.085, "mla in backend": 0.1,
    "moe in backend": 0.1, "moe in era": 0.1, "streaming in backend": 0.3, "type": 0.428,
    "width": 0.085, "width in backend": 0.085,
}  # fmt: skip
SCALES = {"decode": DECODE_SCALES, "prefill": PREFILL_SCALES}
DEVICE = {"decode": 0.1, "prefill": 0.15}
"""Of a device beside its family, in units of the noise of a run."""
