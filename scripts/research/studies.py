"""The studies by name: what makes the package's data, and what its claims were measured with."""

import os

HERE = os.path.dirname(os.path.abspath(__file__))
STUDIES = {
    "fit-efficiency": "efficiency.fit",
    "build-catalog": "catalog.build",
    "validate-predictions": "efficiency.validate",
    "validate-devices": "efficiency.thirds",
    "validate-gains": "speculation.published",
    "simulate-speculation": "speculation.simulate",
    "replay-speculation": "speculation.replay",
    "bench-speculation": "speculation.bench",
    "harvest-speculation": "speculation.harvest",
    "train-eagle3": "speculation.train_eagle3",
    "compare-answers": "engine.answers",
    "bench-overhead": "engine.overhead",
    "bench-heads": "speculation.heads",
    "bench-widths": "engine.widths",
    "bench-chat": "engine.chat",
    "bench-turns": "engine.turns",
    "bench-serve": "serve.load",
    "bench-servers": "serve.compare",
    "bench-long-prompt": "serve.long_prompt",
    "bound-serve": "serve.hindsight",
    "bench-server-cpu": "serve.cpu",
    "kill-clients": "serve.faults",
    "judge-company": "serve.company",
    "maskbench": "serve.maskbench",
    "judge-server": "serve.llama_tests",
    "bench-placement": "gpu.placement",
    "check-gpu": "gpu.check",
    "bench-against-llama-bench": "engine.llama_bench",
    "report": "engine.report",
    "judge-templates": "dialogue.templates",
    "judge-vocabularies": "dialogue.vocabularies",
    "structure": "structure",
}


def listing():
    """A line for each: its name, and the first line of its module."""
    rows = ["  %-26s %s\n" % (name, _first_line(module)) for name, module in STUDIES.items()]
    return "".join(["scripts/research/run NAME [OPTIONS]; NAME --help has the options\n\n"] + rows)


def _first_line(module):
    with open(os.path.join(HERE, *module.split(".")) + ".py") as file:
        return file.readline().strip().strip('"').rstrip(".")
