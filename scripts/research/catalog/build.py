"""Make the facts of the models in models.toml from published configurations.

    scripts/research/run build-catalog [--check]

Each model's weights are counted from its configuration and held against the published number of
parameters. What a file of the language model lacks (a vision tower, a prediction head) may be
missing; nothing else may, and nothing may be too much.
"""

import argparse
import json
import sys
import tomllib
from itertools import groupby
from pathlib import Path
from typing import Any

from research.catalog.families import FAMILIES, Weights

HERE = Path(__file__).parent
TARGET = HERE.parents[2] / "localspec" / "forecast" / "headers.json"
CLOSE = 0.0005
"""Of the parameters: biases and norms that are not counted."""
MOST_BESIDE = 0.21
"""Of the parameters, in a vision tower beside a very small model."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if it differs")
    wanted = parser.parse_args().check
    text = encoded(facts())
    if wanted:
        return int(text != TARGET.read_text("utf-8"))
    TARGET.write_text(text, encoding="utf-8")
    print(f"{TARGET}: {len(text):,} bytes")
    return 0


def facts() -> dict[str, Any]:
    """By name. Exits where a count does not agree with the published one."""
    models = tomllib.loads((HERE / "configurations.toml").read_text("utf-8"))
    return {name: _facts(name, model) for name, model in models.items()}


def encoded(models: dict[str, Any]) -> str:
    """A line a model."""
    lines = (f"{json.dumps(name)}: {json.dumps(model)}" for name, model in models.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _facts(name: str, model: dict[str, Any]) -> dict[str, Any]:
    numbers = model["numbers"]
    weights, layers, state = FAMILIES[model["family"]](numbers)
    _check(name, model, weights)
    runs = [[len(list(run)), *layer] for layer, run in groupby(layers)]
    return {
        "architecture": model["architecture"],
        "n_embd": numbers["embd"],
        "n_ctx_train": numbers["ctx"],
        "n_vocab": numbers["vocab"],
        "n_experts": numbers.get("experts", 0),
        "n_experts_used": numbers.get("used", 0),
        "state_bytes": 4 * state,
        "layers": runs,
        "weights": [[*key, n] for key, n in weights.items() if n],
        "sources": model["sources"],
    }


def _check(name: str, model: dict[str, Any], weights: Weights) -> None:
    published, counted = model["parameters"], sum(weights.values())
    missing = (published - counted) / published
    most = MOST_BESIDE if "beside" in model else CLOSE
    if not -CLOSE <= missing <= most:
        sys.exit(f"{name}: {counted:,} weights were counted and {published:,} are published")


if __name__ == "__main__":
    sys.exit(main())
