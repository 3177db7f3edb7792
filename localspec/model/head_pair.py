"""A target's header beside that of a draft head, and the questions that all heads are asked.

Each answers with nothing, or with a ModelError that is one sentence. libllama takes them for
granted: it reads a hidden state of another width out of bounds, and asserts tensors and types in
the graph of the head's first context.
"""

from dataclasses import dataclass
from pathlib import PurePosixPath

from localspec.errors import ModelError
from localspec.gguf.cursor import shown
from localspec.gguf.header import Header, Tensor
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

    @property
    def n_target_layers(self) -> int:
        """Layers that a token of the target passes."""
        return n_layers_of(self.target)

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
        return next((each for each in self.head.tensors if each.name == name), None)

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
    number = header.integer(header.own_key(key))
    if number is None or number < 1:
        raise header.fail(f"has {number} for {shown(header.own_key(key))}; {AGAIN}")
    return number


def n_heads_of(header: Header) -> int:
    """Layers behind those of the model that predict further tokens."""
    return header.integer(header.own_key("nextn_predict_layers")) or 0


def n_layers_of(header: Header) -> int:
    """Layers of the model proper."""
    return size_of(header, "block_count") - n_heads_of(header)


def n_tokens_of(header: Header) -> int | None:
    """Tokens that a header speaks of, by its list, its count or its embeddings."""
    tokens = header.array("tokenizer.ggml.tokens")
    if tokens is not None:
        return len(tokens)
    table = next((each for each in header.tensors if each.name == "token_embd.weight"), None)
    by_table = table.shape[1] if table and len(table.shape) > 1 else None
    return header.integer(header.own_key("vocab_size")) or by_table
