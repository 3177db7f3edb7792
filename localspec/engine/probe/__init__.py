"""Measure what this machine sustains, through the engine itself, in less than 20 seconds.

Small models with random weights stand in for real ones: thin ones of two depths give the overhead
of a pass and of a layer (intercept and slope), one large enough to leave the caches gives the time
an element of each weight type by batch width, and a thin one with a filled cache gives attention by
cache type and depth. It works alike on every backend. What was measured is kept, by machine, engine
build and power state; only what is missing is measured.
"""

from localspec.engine.probe.run import ProbeSetting, kept_probe, probe_machine

__all__ = ["ProbeSetting", "kept_probe", "probe_machine"]
