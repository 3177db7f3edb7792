"""Whether one model can draft for another, told from their headers, before any weights move.

The rules are llama.cpp's (`common_speculative_are_compatible` in common/speculative.cpp): one type
of tokenizer, the same BOS and EOS where they are added, at most 128 tokens more or fewer, and the
same text for every token from 5 on. What a header leaves out is not held against it: the engine
compares again when both are loaded.
"""

from localspec.model.architectures import HYBRID, RECURRENT
from localspec.model.header import Header
from localspec.model.tokenizer import PREFIX, Tokenizer
from localspec.model.values import shown
from localspec.model.vocabulary import DEFAULT_ENDS

MAX_SIZE_DIFFERENCE = 128
FIRST_COMPARED_ID = 5
# Whether BOS and EOS are added where the header does not say, from src/llama-vocab.cpp.
_ADDS = {"llama": (True, False), "plamo2": (True, False), "t5": (False, True)}
_BPE_WITH_BOS = ("llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "tekken", "chameleon")


def pair_problem(target: Header, draft: Header) -> str | None:
    """Why `draft` cannot draft for `target`, or None where it can. Raises ModelError."""
    if draft.architecture in RECURRENT | HYBRID:
        return "the draft's memory is recurrent and cannot take back tokens"
    ours, theirs = Tokenizer.of(target), Tokenizer.of(draft)
    if ours.model != theirs.model:
        return f"their tokenizers are of different types, {ours.model} and {theirs.model}"
    return _ends_problem(ours, theirs) or _tokens_problem(target, draft)


def _ends_problem(ours: Tokenizer, theirs: Tokenizer) -> str | None:
    for i, end in enumerate(("BOS", "EOS")):
        adds = _adds(ours)[i], _adds(theirs)[i]
        if None not in adds and adds[0] != adds[1]:
            return f"one adds {end} to a text and the other does not"
        ids = _end_id(ours, i), _end_id(theirs, i)
        if True in adds and None not in ids and ids[0] != ids[1]:
            return f"{end} is token {ids[0]} in one and {ids[1]} in the other"
    return None


def _adds(tokenizer: Tokenizer) -> tuple[bool | None, bool | None]:
    bos, eos = _ADDS.get(tokenizer.model or "", (None, None))
    if tokenizer.pre in _BPE_WITH_BOS:
        bos = True
    given = tokenizer.adds_bos, tokenizer.adds_eos
    return bos if given[0] is None else given[0], eos if given[1] is None else given[1]


def _end_id(tokenizer: Tokenizer, i: int) -> int | None:
    given = (tokenizer.bos_id, tokenizer.eos_id)[i]
    return DEFAULT_ENDS.get(tokenizer.model or "", (None, None))[i] if given is None else given


def _tokens_problem(target: Header, draft: Header) -> str | None:
    ours = target.raw_strings(PREFIX + "tokens") or []
    theirs = draft.raw_strings(PREFIX + "tokens") or []
    if abs(len(ours) - len(theirs)) > MAX_SIZE_DIFFERENCE:
        return f"one has {len(ours):,} tokens and the other {len(theirs):,}"
    n = min(len(ours), len(theirs))
    if ours[FIRST_COMPARED_ID:n] == theirs[FIRST_COMPARED_ID:n]:
        return None
    i = next(i for i in range(FIRST_COMPARED_ID, n) if ours[i] != theirs[i])
    return f"token {i} is {shown(ours[i])} in one and {shown(theirs[i])} in the other"
