"""One question to one model: plainly, with prompt lookup, with a draft model, and by default.

All through the command line, as a user would. The model is SmolLM2-135M in 16 bits, the draft model
is the same in 4 bits: with greedy choice all four ways must give the same tokens.
"""

import json
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
LOCALSPEC = Path(sys.executable).with_name("localspec")
MODELS = ROOT / ".cache" / "demo"
TARGET, DRAFT = MODELS / "smollm2-f16.gguf", MODELS / "smollm2-q4_0.gguf"
MAX_TOKENS = 120
# A text to repeat suits prompt lookup. At no token of the answer is the second best close to the
# best, so that no processor's rounding makes the ways part.
PROMPT = """Write all of this text again, in the past tense:

The miller gets up at six. He opens the gate, and the water turns the wheel. The wheel turns \
the stone, and the stone turns the wheat to flour. At noon the miller closes the gate, and the \
wheel stands still."""


AUTO = """
auto, the default, drafts only where that pays on this machine: it measures what passes cost
here, watches which drafts are accepted, and takes lookup, the draft model or neither."""


@dataclass(frozen=True, slots=True)
class Way:
    """How to answer, and the options that ask for it."""

    name: str
    options: tuple[str, ...]


WAYS = (
    Way("plain", ("--spec", "none")),
    Way("prompt lookup", ("--spec", "lookup")),
    Way("draft model", ("--spec", "draft", "--draft", str(DRAFT))),
    Way("auto", ("--spec", "auto", "--draft", str(DRAFT))),
)


def main() -> int:
    MODELS.mkdir(parents=True, exist_ok=True)
    print("\nOne model (SmolLM2-135M, 16 bits), one question, four ways to answer it.\n")
    for path, weight_type in ((TARGET, "F16"), (DRAFT, "Q4_0")):
        if not path.exists():
            localspec("quantize", "starter", "--to", weight_type, "-o", str(path))
    answers = [ask(way) for way in WAYS]
    plain = answers[0]
    print(f"\nQuestion\n{indented(PROMPT)}\n\nAnswer\n{indented(plain['text'])}\n")
    print(f"{'way':<16}{'tok/s':>8}{'x plain':>10}{'tokens a pass':>15}{'same answer':>13}")
    for way, answer in zip(WAYS, answers, strict=True):
        print(row(way, answer, plain))
    print(AUTO)
    print(f"One run each of {len(plain['tokens'])} tokens: a demonstration, not a benchmark.")
    if any(answer["tokens"] != plain["tokens"] for answer in answers):
        print(
            "The answers part: `localspec bench --same-answer` tells whether rounding explains it."
        )
        return 1
    return 0


def ask(way: Way) -> dict[str, Any]:
    greedy = ("-p", PROMPT, "--temp", "0", "-n", str(MAX_TOKENS), "--json")
    return json.loads(localspec("generate", str(TARGET), *way.options, *greedy))


def localspec(*arguments: str) -> str:
    """Run the command, shown as it would be typed; what it prints. Ends the demo where it fails.

    What it says to people is about other models and settings, and not of this comparison.
    """
    shown = (Path(word).name if word.startswith("/") else word for word in arguments)
    said = " ".join(repr("...") if word == PROMPT else word for word in shown)
    print("$ localspec", said, flush=True)
    done = subprocess.run([LOCALSPEC, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.stderr.write(done.stderr)
        sys.exit(done.returncode)
    return done.stdout


def row(way: Way, answer: dict[str, Any], plain: dict[str, Any]) -> str:
    speed, plain_speed = answer["timings"]["decode_tps"], plain["timings"]["decode_tps"]
    ratio = f"{speed / plain_speed:.2f}" if speed and plain_speed else "-"
    per_pass = answer["speculation"]["tokens_per_pass"]
    return (
        f"{way.name:<16}{number(speed, 1):>8}{ratio:>10}{number(per_pass, 2):>15}"
        f"{agreement(answer['tokens'], plain['tokens']):>13}"
    )


def number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def agreement(tokens: list[int], expected: list[int]) -> str:
    if tokens == expected:
        return "yes"
    both = list(zip(tokens, expected, strict=False))
    same = next((i for i, (a, b) in enumerate(both) if a != b), len(both))
    return f"to token {same}"


def indented(text: str) -> str:
    lines = (textwrap.fill(line, 92) for line in text.strip().splitlines())
    return textwrap.indent("\n".join(lines), "    ")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
