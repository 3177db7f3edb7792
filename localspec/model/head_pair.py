"""A target's header beside that of a draft head, and the questions that all heads are asked.

Each answers with nothing, or with a ModelError that is one sentence. libllama takes them for
granted: it reads a hidden state of another width out of bounds, and asserts tensors and types in
the graph of the head's first context.

EAGLE-3 and DFlash heads read the inputs of some of a target's layers (taps). The layers are by
number in `target_layers`; the number of layers itself means what leaves the last one. A target
whose graph gives no such rows asserts (`llm_graph_result::set_outputs` in src/llama-graph.cpp of
llama.cpp). Source: src/models/eagle3.cpp.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from localspec.errors import ModelError
from localspec.gguf.cursor import shown
from localspec.gguf.header import Header, Tensor
from localspec.model.facts import HeadFacts
from localspec.model.layers import names_of
from localspec.model.tokenizer import Tokenizer

OTHERS = "pull the head that was made for this model"
AGAIN = "download or convert the head again"


@dataclass(frozen=True, slots=True)
class HeadPair:
    """`head` is the target itself where the head is inside its file."""

    target: Header
    head: Header

    @property
    def is_inside(self) -> bool:
        return self.head is self.target

    @property
    def width(self) -> int:
        """Numbers in a hidden state of the target."""
        return size_of(self.target, "embedding_length")

    def unfit(self, why: str, then: str = OTHERS) -> ModelError:
        """The error of a head that does not belong to this target."""
        names = [PurePosixPath(each.name).name for each in (self.head, self.target)]
        if self.is_inside:
            return ModelError(f"the draft head in {names[0]} cannot be used: {why}; {then}")
        return ModelError(f"{names[0]} cannot draft for {names[1]}: {why}; {then}")

    def broken(self, what: str) -> ModelError:
        """The error of a head that no target can use."""
        name = PurePosixPath(self.head.name).name
        whose = f"the draft head in {name}" if self.is_inside else name
        return ModelError(f"{whose} {what}; {AGAIN}")

    def tensor(self, name: str) -> Tensor | None:
        """A tensor of the head's file."""
        return self.head.tensor(name)

    def need(self, name: str, *shape: int) -> Tensor:
        """A tensor that must be there, in this shape where one is given."""
        tensor = self.tensor(name)
        if tensor is None:
            raise self.broken(f"lacks the tensor {shown(name)}")
        if shape and tensor.shape != shape:
            raise self.broken(f"has {shown(name)} of shape {tensor.shape} in place of {shape}")
        return tensor

    def check_width(self, n: int, what: str) -> None:
        """`n` numbers are what the head expects of a hidden state, by the key `what`."""
        if n != self.width:
            raise self.unfit(
                f"its {what} is {n:,}, and hidden states of the target have {self.width:,} numbers"
            )

    def check_architecture(self, *known: str) -> None:
        """The head's, by its name of today; converters of the past had others."""
        if self.head.architecture not in known:
            name = PurePosixPath(self.head.name).name
            raise ModelError(
                f"{name} has the architecture {shown(self.head.architecture)}, which llama.cpp"
                f" calls {known[0]!r} today; convert the head again or pull a newer file"
            )

    def check_tokens(self) -> None:
        """Both have the same tokens with the same numbers: scores are given by number."""
        if self.is_inside:
            return
        sizes = tuple(n_tokens_of(each) for each in (self.target, self.head))
        if None not in sizes and sizes[0] != sizes[1]:
            raise self.unfit(f"it knows {sizes[1]:,} tokens, and the target {sizes[0]:,}")
        target, head = Tokenizer.of(self.target), Tokenizer.of(self.head)
        difference = target.tokens_difference(head) if head.has_text and target.has_text else None
        if difference:
            raise self.unfit(f"its tokens are others ({difference})")


def size_of(header: Header, key: str) -> int:
    """A size under the architecture's own key. ModelError unless it is there and above 0."""
    number = header.own_integer(key)
    if number is None or number < 1:
        raise header.fail(f"has {number} for {shown(header.own_key(key))}; {AGAIN}")
    return number


def n_layers_of(header: Header) -> int:
    """Layers of the model proper."""
    return size_of(header, "block_count") - header.n_draft_layers


def n_tokens_of(header: Header) -> int | None:
    """Tokens that a header speaks of, by its list, its count or its embeddings."""
    tokens = header.array("tokenizer.ggml.tokens")
    if tokens is not None:
        return len(tokens)
    table = header.tensor("token_embd.weight")
    by_table = table.shape[1] if table and len(table.shape) > 1 else None
    return header.own_integer("vocab_size") or by_table


TAPPED = names_of(
    "bailingmoe3 deepseek4 gemma4 gpt-oss hunyuan-dense hunyuan_vl lfm2 lfm2moe llama mimo2"
    " minimax-01 minimax-m2 muse-glimmer nanbeige nemotron_h nemotron_h_moe qwen3 qwen35"
    " qwen35moe qwen3moe qwen3next"
)
"""Whose graph gives the inputs of its layers. That of qwen4exp gives them in another width."""
TAPPED_AT_END = names_of("deepseek4 mimo2 nemotron_h nemotron_h_moe")
"""Those that also give what leaves the last layer."""
N_EAGLE_TAPS = 3


def eagle3(pair: HeadPair) -> HeadFacts:
    """One layer, which reads three taps through an encoder."""
    head = pair.head
    pair.check_architecture("eagle3")
    taps = taps_of(pair)
    if len(taps) != N_EAGLE_TAPS:
        raise pair.broken(f"reads {len(taps)} layers of its target, and EAGLE-3 reads three")
    pair.check_width(size_of(head, "target_hidden_size"), "target_hidden_size")
    if size_of(head, "block_count") != 1:
        raise pair.broken(f"has {size_of(head, 'block_count')} layers, and EAGLE-3 has one")
    check_equal_sizes(pair)
    pair.check_tokens()
    n, n_in = size_of(head, "embedding_length"), len(taps) * pair.width
    pair.need("fc.weight", n_in, n)
    if head.flag(head.own_key("norm_before_fc")):
        pair.need("enc.output_norm.weight", n_in)
    for name in ("attn_norm", "attn_norm_2"):
        pair.need(f"blk.0.{name}.weight", n)
    check_ends(pair)
    return HeadFacts("eagle3", Path(head.name), taps=taps)


def taps_of(pair: HeadPair) -> tuple[int, ...]:
    """The layers that the head reads, which the target can give."""
    name, n_layers = pair.target.architecture, n_layers_of(pair.target)
    if name not in TAPPED:
        raise pair.unfit(
            f"it reads layers inside the target, which llama.cpp does not give out of the"
            f" architecture {shown(name)}",
            "use another kind of head or a draft model",
        )
    taps = pair.head.integers(pair.head.own_key("target_layers"))
    if not taps:
        raise pair.broken("does not say which layers of its target it reads (target_layers)")
    wrong = next((tap for tap in taps if not 0 <= tap <= n_layers), None)
    if wrong is not None:
        raise pair.unfit(f"it reads layer {wrong}, and the target has {n_layers}")
    if n_layers in taps and name not in TAPPED_AT_END:
        raise pair.unfit(
            f"it reads what leaves the target's last layer ({n_layers}), which llama.cpp does not"
            f" give out of the architecture {shown(name)}",
            "use another head",
        )
    return taps


def check_equal_sizes(pair: HeadPair) -> None:
    """Keys and values of the head are of one size."""
    head = pair.head
    even = size_of(head, "embedding_length") // size_of(head, "attention.head_count")
    sizes = [_length(head, kind, even) for kind in ("key", "value")]
    if sizes[0] != sizes[1]:
        raise pair.broken(f"has keys of {sizes[0]} and values of {sizes[1]} numbers, not of one")


def _length(head: Header, kind: str, default: int) -> int:
    given = head.own_integer(f"attention.{kind}_length")
    return default if given is None else given


def check_ends(pair: HeadPair) -> None:
    """Embeddings and scores are the head's own, or the target's, whose width is then its own."""
    n, n_tokens = size_of(pair.head, "embedding_length"), n_tokens_of(pair.target)
    table = pair.tensor("token_embd.weight")
    is_whole = table is not None and pair.tensor("output.weight") is not None
    if not is_whole and n != pair.width:
        raise pair.unfit(
            f"it works with the target's embeddings or scores, of {pair.width:,} numbers, and its"
            f" own states have {n:,}"
        )
    if table and n_tokens:
        pair.need("token_embd.weight", n, n_tokens)
    _check_reduced(pair, n, n_tokens)


def _check_reduced(pair: HeadPair, n: int, n_tokens: int | None) -> None:
    """A head that knows some of the tokens has a table of their numbers, `d2t`."""
    numbers, scores = pair.tensor("d2t"), pair.tensor("output.weight")
    if numbers is None:
        if scores and n_tokens:
            pair.need("output.weight", n, n_tokens)
        return
    if numbers.type.name != "I64" or len(numbers.shape) != 1:
        raise pair.broken(f"numbers its tokens (d2t) in {numbers.type.name} in place of I64")
    if n_tokens and numbers.shape[0] > n_tokens:
        raise pair.broken(f"has {numbers.shape[0]:,} tokens in d2t, and its target {n_tokens:,}")
    pair.need("output.weight", n, numbers.shape[0])
