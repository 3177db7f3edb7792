"""Control tokens in what users say, and all other ids, on vocabularies of public models.

    scripts/research/run judge-vocabularies [--archive FILE] [--json]

For every vocabulary of llama-cpp-python's source archive, with five templates. "same": prompts of
libllama's own test texts that have the ids of the whole prompt tokenized at once, as prompts had
before; "other": those that have not. "forged": questions that spell a control token, or a part of
one that the template could complete; "opened": those whose prompt has other control tokens than
that of an innocent question. A tokenizer that lower-cases cannot spell its own control tokens.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from research.dialogue.archive import load_vocabulary, open_archive

from localspec.dialogue.prompts import Prompts
from localspec.dialogue.template import ChatTemplate, Message
from localspec.engine.vocabulary import Vocabulary

USUAL = "llama-bpe"
"""Whose test texts stand in for a vocabulary without any."""
SEPARATOR = "\n__ggml_vocab_test__\n"
MOST_FORGED = 60
FAMILIES = (
    "{{ bos_token }}{% for m in messages %}%A{{ m.role }}\n{{ m.content }}%B\n{% endfor %}%A",
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}",
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}<|assistant|>\n",
    "{{ bos_token }}{% for m in messages %}USER: {{ m.content }} {% endfor %}ASSISTANT:",
    "{% for m in messages %}{{ bos_token }}[INST] {{ m.content | trim }} [/INST]{% endfor %}",
)
"""%A and %B are the vocabulary's own first and last control token."""


@dataclass(frozen=True)
class Judged:
    """What was found of one vocabulary, in prompts."""

    name: str
    same: int
    other: int
    forged: int
    opened: int


def main(
    archive: Annotated[
        Path | None, typer.Option(exists=True, help="The source archive; else it is fetched.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Compare."""
    files = open_archive(archive).vocabularies
    judged = [_judged(name, path, _texts(files, name)) for name, path in files.items()]
    if as_json:
        print(json.dumps([asdict(one) for one in judged]))
    else:
        print("| vocabulary | same | other | forged | opened |\n|---|---|---|---|---|")
        for one in judged:
            print(f"| {one.name} | {one.same} | {one.other} | {one.forged} | {one.opened} |")
    if any(one.other or one.opened for one in judged):
        raise typer.Exit(1)


def _texts(files: dict[str, Path], name: str) -> list[str]:
    """libllama's own test texts."""
    inputs = [files[each].with_name(files[each].name + ".inp") for each in (name, USUAL)]
    found = next(path for path in inputs if path.exists())
    return [text for text in found.read_bytes().decode().split(SEPARATOR) if text.strip()]


def _judged(name: str, path: Path, texts: Sequence[str]) -> Judged:
    vocabulary = load_vocabulary(path)
    controls = [text for text, kind in vocabulary.specials.items() if kind == "control"]
    same, opened = [], []
    for prompts in _families(vocabulary, controls):
        innocent = [text for text in texts if not any(each in text for each in controls)]
        same += [_is_same(prompts, text) for text in innocent]
        usual = _controls(prompts, "A B", controls)
        forged = [text for each in controls[:MOST_FORGED] for text in _forged(each)]
        opened += [_controls(prompts, text, controls) != usual for text in forged]
    return Judged(name, sum(same), same.count(False), len(opened), sum(opened))


def _families(vocabulary: Vocabulary, controls: Sequence[str]) -> Iterator[Prompts]:
    bos, eos = vocabulary.bos_text, vocabulary.eos_text
    for source in FAMILIES:
        own = source.replace("%A", controls[0]).replace("%B", controls[-1])
        yield Prompts(ChatTemplate(own, bos, eos), vocabulary, bos)


def _is_same(prompts: Prompts, text: str) -> bool:
    asked = [Message(role="system", content="Be brief <"), Message(role="user", content=text)]
    rendered = prompts.rendered(asked)
    has_bos = bool(prompts.bos) and rendered.clean.startswith(prompts.bos)
    whole = prompts.vocabulary.tokenize(rendered.clean, add_special=not has_bos)
    return prompts.ids(rendered) == whole


def _controls(prompts: Prompts, text: str, controls: Sequence[str]) -> list[str]:
    ids = prompts.of([Message(role="user", content=text)])
    return [name for name in map(prompts.vocabulary.text, ids) if name in controls]


def _forged(control: str) -> Iterator[str]:
    yield from (f"A{control}B", control, control * 2, f" {control} x", f"x {control[:-1]}")
    yield from (control[1:], f"{control[:2]}{control}")
