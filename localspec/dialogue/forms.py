"""The forms in which a chat template can take a conversation, and how one is found.

Templates are written for conversations of one form: content as text or as a list of parts, with or
without a system role, in strict alternation. Many raise where they meet another; some lose what
they do not expect without a word. So a sample is rendered first, a conversation of the same shape
whose words occur nowhere else, in one form after the other until no word is lost.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise, product
from typing import Any, Literal, NotRequired, TypedDict, get_args

Role = Literal["system", "user", "assistant"]
System = Literal["own", "first", "last"]


class Message(TypedDict):
    """One turn of a conversation; `thought` is an assistant's reasoning, apart from `content`."""

    role: Role
    content: str
    thought: NotRequired[str]


Render = Callable[[Sequence[dict[str, Any]]], str]
Shape = tuple[tuple[Role, bool, bool], ...]
"""Of each message: its role, whether it says something, whether it has a thought."""
THOUGHT_FIELDS = ("reasoning_content", "thinking", "reasoning")
"""What templates call an assistant's thought."""
GAP = "\n\n"
"""Between texts that become one message."""


@dataclass(frozen=True, slots=True)
class Form:
    """How a template is given messages.

    `in_parts`: roles whose content is a list. `system`: a message of its own, or the head of the
    first or last question. `is_joined`: empty answers are left out, and what follows a message of
    the same role is added to it. `thought`: the fields that carry an answer's thought. `is_deaf`:
    the sample's last question was lost.
    """

    in_parts: frozenset[Role] = frozenset()
    system: System = "own"
    is_joined: bool = False
    thought: tuple[str, ...] = ()
    is_deaf: bool = False

    def text(self, said: Sequence[Message], render: Render) -> str:
        """The prompt. LookupError where the last question is not in it; what `render` raises."""
        text = render(self.messages(said))
        if self.is_deaf and said[-1]["content"].strip() not in text:
            raise LookupError("it leaves out what the user says")
        return text

    def messages(self, said: Sequence[Message]) -> list[dict[str, Any]]:
        """The messages as the template is given them."""
        if self.system != "own":
            said = _without_system(said, -1 if self.system == "last" else 0)
        if self.is_joined:
            said = _joined(said)
        return [self._message(message) for message in said]

    def _message(self, message: Message) -> dict[str, Any]:
        given: dict[str, Any] = {**message}
        thought = given.pop("thought", None)
        if message["role"] in self.in_parts:
            given["content"] = [{"type": "text", "text": message["content"]}]
        return given | (dict.fromkeys(self.thought, thought) if thought else {})


def _without_system(said: Sequence[Message], place: int) -> list[Message]:
    """System texts at the head of the first or last question, or as a question of their own."""
    texts = [message["content"] for message in said if message["role"] == "system"]
    rest = [message for message in said if message["role"] != "system"]
    questions = [i for i, message in enumerate(rest) if message["role"] == "user"]
    if not questions:
        return [Message(role="user", content=GAP.join(texts)), *rest]
    i = questions[place]
    rest[i] = {**rest[i], "content": GAP.join([*texts, rest[i]["content"]])}
    return rest


def _joined(said: Sequence[Message]) -> list[Message]:
    joined: list[Message] = []
    for message in said:
        if message["role"] == "assistant" and not message["content"].strip():
            continue
        if joined and joined[-1]["role"] == message["role"]:
            content = joined[-1]["content"] + GAP + message["content"]
            joined[-1] = {**joined[-1], "content": content}
        else:
            joined.append(message)
    return joined


def shape_of(said: Sequence[Message]) -> Shape:
    """A conversation's shape; of pairs that go on alike, three are as good as any number."""
    marks: list[tuple[Role, bool, bool]] = []
    for message in said:
        thinks = bool(message.get("thought"))
        marks.append((message["role"], bool(message["content"].strip()), thinks))
        if len(marks) > 8 and marks[-2:] == marks[-4:-2] == marks[-6:-4] == marks[-8:-6]:
            del marks[-2:]
    return tuple(marks)


def find_form(shape: Shape, thought: tuple[str, ...], render: Render) -> Form:
    """The plainest of the forms that lose least.

    `thought`: the fields for thoughts that the template names. Where every form fails, the plainest
    one: the conversation itself will show why.
    """
    sample = _sample(shape)
    best, least = Form(thought=thought), _FAILED
    for form in _forms(shape, thought):
        loss = _loss(sample, form, render)
        if loss < least:
            best, least = form, loss
        if not any(least):
            break
    return replace(best, is_deaf=least < _FAILED and least[0] > 0)


def _sample(shape: Shape) -> list[Message]:
    sample: list[Message] = []
    for i, (role, says, thinks) in enumerate(shape):
        message = Message(role=role, content=f"quince{i:04}" if says else "")
        sample.append({**message, "thought": f"medlar{i:04}"} if thinks else message)
    return sample


def _forms(shape: Shape, thought: tuple[str, ...]) -> Iterator[Form]:
    """Forms that make a difference for this shape, the plainest first."""
    roles: list[Role] = [role for role, _, _ in shape]
    spoken = [role for role in roles if role != "system"]
    is_even = all(a != b for a, b in pairwise(spoken)) and all(says for _, says, _ in shape)
    systems: Sequence[System] = get_args(System) if "system" in roles else ("own",)
    joins = (False,) if is_even else (False, True)
    thoughts = (thought, ()) if thought else ((),)
    choices = product(_subsets(tuple(dict.fromkeys(roles))), joins, systems, thoughts)
    for in_parts, is_joined, system, fields in choices:
        yield Form(in_parts, system, is_joined, fields)


def _subsets(roles: tuple[Role, ...]) -> list[frozenset[Role]]:
    """None of them and all of them first, which most templates mean."""
    some = [chosen for n in range(1, len(roles)) for chosen in combinations(roles, n)]
    return [frozenset(chosen) for chosen in dict.fromkeys([(), roles, *some])]


_Loss = tuple[int, int, int, int]
"""The last question, system texts, other texts, and thoughts that are written twice."""
_FAILED: _Loss = (2, 0, 0, 0)


def _loss(sample: Sequence[Message], form: Form, render: Render) -> _Loss:
    try:
        text = render(form.messages(sample)).casefold()
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - a template can raise anything
        return _FAILED
    if any(spelled in text for spelled in _SPELLED):
        return _FAILED  # the list itself was written, brackets and all
    lost = [message["role"] for message in sample if message["content"] not in text]
    doubled = [m for m in sample if "thought" in m and text.count(m["thought"]) > 1]
    is_deaf = sample[-1]["content"] not in text
    return int(is_deaf), lost.count("system"), len(lost), len(doubled)


_SPELLED = ("'type': 'text'", '"type": "text"')
