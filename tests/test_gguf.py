"""The GGUF reader: right on real files (gguf-py is the oracle) and unharmed by hostile ones."""

import os
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from math import prod
from pathlib import Path

import gguf
import pytest
from babbling import write_babbling_model
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from localspec.errors import ModelError
from localspec.gguf.cursor import FORMATS, MAX_STRINGS, Array, ValueType
from localspec.gguf.reader import Header, part_names, read_header, read_source
from localspec.gguf.types import ALL_TYPES, BY_NAME
from localspec.gguf.writer import TensorPlan, Typed, array_of, header_bytes, write_gguf
from localspec.model.synthetic import Shape, write_random_model

F32 = BY_NAME["F32"]
VOCABULARY = ("tokens", "scores", "token_type", "merges")


@pytest.fixture(scope="session")
def gguf_tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    write_babbling_model(path, Shape(n_embd=64, n_ff=64, n_vocab=300))
    return path


def zeros(name: str, shape: tuple[int, ...]) -> TensorPlan:
    return TensorPlan(name, F32, shape, lambda: (bytes(4 * prod(shape)),))


def said(path: Path) -> str:
    """What the reader says of a file that it must refuse: one sentence that names it, at once."""
    start = time.process_time()
    with pytest.raises(ModelError) as caught:
        read_header(path)
    assert time.process_time() - start < 1
    sentence = str(caught.value)
    assert sentence.startswith((str(path), repr(str(path))))
    assert "\n" not in sentence
    assert len(sentence) < 600
    return sentence


# --- against gguf-py ---------------------------------------------------------------------------


def test_types_weigh_what_gguf_py_says():
    """Another size of a block would shift every tensor after the first."""
    wrong = {"Q8_1"}  # gguf-py gives it the 40 bytes of older versions; no file has it
    for kind in GGMLQuantizationType:
        ours = BY_NAME.get(kind.name)
        assert ours is not None, f"{kind.name} is new"
        if kind.name not in wrong:
            assert (ours.id, ours.block_elements, ours.block_bytes) == (
                kind.value,
                *GGML_QUANT_SIZES[kind],
            )
    assert len({kind.id for kind in ALL_TYPES}) == len(ALL_TYPES)


def assert_same_as_gguf_py(path: Path) -> None:
    header, oracle = read_header(path), gguf.GGUFReader(path)
    own_fields = {key for key in oracle.fields if not key.startswith("GGUF.")}
    assert set(header.metadata) == own_fields
    for key in own_fields:
        value = header.metadata[key]
        wanted = oracle.fields[key].contents()
        if isinstance(value, Array):
            assert (value.strings() if value.is_strings else list(value.numbers())) == wanted
        else:
            assert value == wanted
            assert type(value) is type(wanted)
    assert len(header.tensors) == len(oracle.tensors)
    for ours, theirs in zip(header.tensors, oracle.tensors, strict=True):
        assert ours.name == theirs.name
        assert ours.type.id == theirs.tensor_type
        assert list(ours.shape) == list(theirs.shape)
        assert ours.n_elements == theirs.n_elements
        assert ours.n_bytes == theirs.n_bytes
        assert ours.offset_bytes == theirs.data_offset


@pytest.mark.slow
def test_smollm2_reads_as_gguf_py_reads_it(gguf_smollm2: Path):
    assert_same_as_gguf_py(gguf_smollm2)


def test_random_model_reads_as_gguf_py_reads_it(gguf_tiny: Path):
    assert_same_as_gguf_py(gguf_tiny)


def test_gemma_reads_as_gguf_py_reads_it(gguf_gemma: Path, tmp_path: Path):
    """The vocabulary is cut to its first 1,000 tokens: all of it takes gguf-py 10 s."""
    header = read_header(gguf_gemma)
    short = {
        key: Array(value.type, 1000, value.data[: cut_after(value, 1000)])
        if isinstance(value, Array) and value.count > 1000
        else value
        for key, value in header.metadata.items()
    }
    plans = [TensorPlan(t.name, t.type, t.shape, lambda: ()) for t in header.tensors]
    path = tmp_path / "short.gguf"
    path.write_bytes(header_bytes(short, plans))
    last = header.tensors[-1]
    data_start = -(-path.stat().st_size // 32) * 32
    shift = header.parts[0].data_offset_bytes - data_start
    os.truncate(path, last.offset_bytes + last.n_bytes - shift)
    assert_same_as_gguf_py(path)
    for ours, original in zip(read_header(path).tensors, header.tensors, strict=True):
        assert ours.offset_bytes == original.offset_bytes - shift


def cut_after(array: Array, n: int) -> int:
    """How many bytes the first `n` values take."""
    if not array.is_strings:
        return n * struct.calcsize(FORMATS[array.type])
    return sum(8 + len(text) for text in array.raw_strings()[:n])


# --- what it is for ----------------------------------------------------------------------------


def test_large_vocabularies_cost_next_to_nothing(gguf_smollm2: Path, gguf_gemma: Path):
    """Every command opens a model; gguf-py takes 2 and 10 s for these. Best of five, for noise."""
    for path, limit_s in ((gguf_smollm2, 0.1), (gguf_gemma, 0.2)):
        times_s = list[float]()
        for _ in range(5):
            start = time.process_time()
            read_header(path)
            times_s.append(time.process_time() - start)
        assert min(times_s) < limit_s


def test_vocabulary_is_decoded_on_demand(gguf_gemma: Path):
    header = read_header(gguf_gemma)
    tokens = header.strings("tokenizer.ggml.tokens")
    assert tokens is not None
    assert len(tokens) == 262_144
    assert tokens[:3] == ["<pad>", "<eos>", "<bos>"]
    raw = header.raw_strings("tokenizer.ggml.tokens") or []
    assert [text.decode() for text in raw[:100]] == tokens[:100]
    kinds = header.integers("tokenizer.ggml.token_type")
    assert kinds is not None
    assert kinds[:3] == (3, 3, 3)


def test_getters_know_kinds(tmp_path: Path):
    path = tmp_path / "m.gguf"
    values = {
        "general.architecture": "llama",
        "n": 7,
        "x": 0.5,
        "yes": True,
        "ints": array_of(ValueType.UINT32, [1, 2]),
        "texts": array_of(ValueType.STRING, ["a", b"\xff"]),
    }
    write_gguf(path, values, [])
    header = read_header(path)
    assert header.integer("n") == 7
    assert header.number("n") == 7
    assert header.number("x") == 0.5
    assert header.flag("yes") is True
    assert header.text("general.architecture") == header.architecture == "llama"
    assert header.integers("ints") == (1, 2)
    assert header.strings("texts") == ["a", "\ufffd"]
    assert header.raw_strings("texts") == [b"a", b"\xff"]
    for getter in (header.integer, header.number, header.flag, header.text, header.strings):
        assert getter("absent") is None
    for getter, key in (
        *((header.integer, key) for key in ("x", "yes", "ints", "general.architecture")),
        *((header.flag, key) for key in ("n", "texts")),
        *((header.text, key) for key in ("n", "texts")),
        *((header.strings, key) for key in ("n", "ints")),
        *((header.integers, key) for key in ("n", "texts")),
    ):
        with pytest.raises(ModelError, match=key):
            getter(key)


# --- properties --------------------------------------------------------------------------------

NUMBERS = {
    ValueType.UINT8: st.integers(0, 2**8 - 1),
    ValueType.INT8: st.integers(-(2**7), 2**7 - 1),
    ValueType.UINT16: st.integers(0, 2**16 - 1),
    ValueType.INT16: st.integers(-(2**15), 2**15 - 1),
    ValueType.UINT32: st.integers(0, 2**32 - 1),
    ValueType.INT32: st.integers(-(2**31), 2**31 - 1),
    ValueType.UINT64: st.integers(0, 2**64 - 1),
    ValueType.INT64: st.integers(-(2**63), 2**63 - 1),
    ValueType.FLOAT32: st.floats(width=32, allow_nan=False),
    ValueType.FLOAT64: st.floats(allow_nan=False),
    ValueType.BOOL: st.booleans(),
}
TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
SCALARS = st.one_of(
    *(st.builds(Typed, st.just(kind), numbers) for kind, numbers in NUMBERS.items()),
    st.builds(Typed, st.just(ValueType.STRING), TEXT),
)
ARRAYS = st.one_of(
    *(
        st.builds(array_of, st.just(kind), st.lists(numbers, max_size=30))
        for kind, numbers in NUMBERS.items()
    ),
    st.builds(array_of, st.just(ValueType.STRING), st.lists(TEXT, max_size=30)),
)
KEYS = TEXT.filter(lambda key: key and key not in ("general.alignment", "split.count"))
SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    values=st.dictionaries(KEYS, st.one_of(SCALARS, ARRAYS), max_size=8),
    shapes=st.dictionaries(st.text("abc.", min_size=1, max_size=20), SHAPES, max_size=5),
)
def test_what_is_written_is_read(
    tmp_path: Path, values: dict[str, Typed | Array], shapes: dict[str, tuple[int, ...]]
):
    path = tmp_path / "m.gguf"
    write_gguf(path, values, [zeros(name, shape) for name, shape in shapes.items()])
    header = read_header(path)
    assert {
        key: value.value if isinstance(value, Typed) else value for key, value in values.items()
    } == header.metadata
    assert {tensor.name: tensor.shape for tensor in header.tensors} == shapes
    for key, value in values.items():
        if isinstance(value, Array):
            assert read_again(header, key) == value


def read_again(header: Header, key: str) -> Array | None:
    """An array after decoding and encoding."""
    array = header.array(key)
    assert array is not None
    return array_of(array.type, array.raw_strings() if array.is_strings else array.numbers())


@pytest.mark.slow
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_flipped_bytes_give_an_error_or_a_header(
    gguf_tiny: Path, tmp_path: Path, data: st.DataObject
):
    """Whatever a bad disk or a bad person makes of a header: a ModelError or a header, soon."""
    content = bytearray(gguf_tiny.read_bytes())
    n_header = read_header(gguf_tiny).parts[0].data_offset_bytes
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, n_header - 1))
        content[position] = data.draw(st.integers(0, 255))
    path = tmp_path / "flipped.gguf"
    path.write_bytes(content)
    start = time.process_time()
    with suppress(ModelError):
        read_header(path)
    assert time.process_time() - start < 1


# --- damage ------------------------------------------------------------------------------------


def test_truncated_at_20_points(gguf_smollm2: Path, tmp_path: Path):
    """A broken download is told from its header alone, with the number of missing bytes."""
    size = gguf_smollm2.stat().st_size
    data_start = read_header(gguf_smollm2).parts[0].data_offset_bytes
    path = tmp_path / "cut.gguf"
    with gguf_smollm2.open("rb") as file:
        path.write_bytes(file.read(data_start))
    os.truncate(path, size)
    read_header(path)
    points = [data_start + (size - data_start) * i // 10 for i in range(10)]
    for length in [size - 1, *reversed(points)]:
        os.truncate(path, length)
        assert f"is {size - length} bytes short; download it again" in said(path)
    for length in [data_start * i // 8 for i in range(7, 0, -1)] + [24, 23, 4]:
        os.truncate(path, length)
        assert "ends inside its header" in said(path)
    os.truncate(path, 3)
    assert "is not a GGUF file" in said(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04" + bytes(100), "is not a GGUF file"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "of version 1"),
        (b"GGUF" + struct.pack("<IQQ", 4, 0, 0), "of version 4"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "claims"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, (1 << 64) - 1), "claims"),
        (b"GGUF" + struct.pack("<IQQ", 3, 65_000, 65_000) + bytes(200), "key without a name"),
    ],
)
def test_not_a_header(tmp_path: Path, content: bytes, words: str):
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    assert words in said(path)


def test_version_2_is_read(tmp_path: Path):
    path = tmp_path / "m.gguf"
    content = bytearray(header_bytes({"a": 1}, []))
    content[4] = 2
    path.write_bytes(content)
    assert (read_header(path).version, read_header(path).metadata) == (2, {"a": 1})


def key_value(key: bytes, kind: int, body: bytes) -> bytes:
    return struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + body


def array_head(kind: int, count: int) -> bytes:
    return struct.pack("<IQ", kind, count)


ONE_KEY = {
    "an unknown type": (key_value(b"a", 13, bytes(8)), "unknown type 13"),
    "arrays in arrays": (key_value(b"a", 9, array_head(9, 1) + bytes(40)), "arrays inside"),
    "an array of nothing known": (key_value(b"a", 9, array_head(77, 1)), "unknown type 77"),
    "numbers beyond the end": (key_value(b"a", 9, array_head(10, 1 << 61)), "ends inside"),
    "too many strings": (key_value(b"a", 9, array_head(8, 1 << 63)), "strings in 'a'"),
    "strings beyond the end": (key_value(b"a", 9, array_head(8, 3)), "ends inside"),
    "a huge string": (key_value(b"a", 8, struct.pack("<Q", 1 << 62)), "ends inside"),
    "a huge string in an array": (
        key_value(b"a", 9, array_head(8, 2) + struct.pack("<Q", (1 << 64) - 8) + bytes(8)),
        "ends inside",
    ),
    "a huge key": (struct.pack("<Q", 1 << 40), "has a name of"),
    "alignment 0": (key_value(b"general.alignment", 4, bytes(4)), "power of two"),
    "alignment 33": (key_value(b"general.alignment", 4, struct.pack("<I", 33)), "power of two"),
    "alignment of text": (key_value(b"general.alignment", 8, bytes(8)), "power of two"),
    "alignment -32": (key_value(b"general.alignment", 5, struct.pack("<i", -32)), "power of two"),
}


@pytest.mark.parametrize("case", ONE_KEY)
def test_hostile_metadata(tmp_path: Path, case: str):
    body, words = ONE_KEY[case]
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + body)
    assert words in said(path)


def test_duplicate_keys(tmp_path: Path):
    path = tmp_path / "m.gguf"
    twice = key_value(b"a", 4, bytes(4)) * 2
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + twice)
    assert "the key 'a' twice" in said(path)


def test_long_names_do_not_fill_the_screen(tmp_path: Path):
    path = tmp_path / "m.gguf"
    twice = key_value(b"\x1b[31m" + b"a" * 60_000, 4, bytes(4)) * 2
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + twice)
    assert "\x1b" not in said(path)


@pytest.mark.slow
def test_many_strings_are_bounded_in_time(tmp_path: Path):
    """The most strings that are let through must not take longer than a second either."""
    path = tmp_path / "m.gguf"
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 0, 2))
        file.write(key_value(b"a", 9, array_head(8, MAX_STRINGS)))
        file.write(bytes(8 * MAX_STRINGS))
        file.write(key_value(b"b", 9, array_head(8, 1) + bytes(8)))
    assert "strings in 'b'" in said(path)


def info(name: bytes, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    head = struct.pack("<Q", len(name)) + name + struct.pack("<I", len(shape))
    return head + struct.pack(f"<{len(shape)}QIQ", *shape, kind, offset)


INFOS = {
    "twice": ([info(b"a", (8,)), info(b"a", (8,), 0, 32)], "the tensor 'a' twice"),
    "overlapping": ([info(b"a", (8,)), info(b"b", (8,))], "at byte 0 of its data, where byte 32"),
    "with a gap": ([info(b"a", (8,)), info(b"b", (8,), 0, 64)], "at byte 64 of its data"),
    "not aligned": ([info(b"a", (8,)), info(b"b", (8,), 0, 33)], "at byte 33 of its data"),
    "outside": ([info(b"a", (8,), 0, 1 << 63)], "of its data, where byte 0 follows"),
    "of an unknown type": ([info(b"a", (8,), 99)], "format unknown here (number 99)"),
    "of a removed type": ([info(b"a", (32,), 4)], "format unknown here (number 4)"),
    "of 5 dimensions": ([info(b"a", (1, 1, 1, 1, 1))], "5 dimensions"),
    "of 2^32 dimensions": (
        [struct.pack("<Q", 1) + b"a" + struct.pack("<I", (1 << 32) - 1) + bytes(64)],
        "dimensions",
    ),
    "of length 0": ([info(b"a", (8, 0))], "impossible shape"),
    "of length -1": ([info(b"a", ((1 << 64) - 1,))], "impossible shape"),
    "that overflows": ([info(b"a", (1 << 32, 1 << 32))], "impossible shape"),
    "of half a block": ([info(b"a", (48,), 2)], "impossible shape"),
    "with a long name": ([info(b"a" * 64, (8,))], "has a name of 64 bytes"),
}


@pytest.mark.parametrize("case", INFOS)
def test_hostile_tensor(tmp_path: Path, case: str):
    infos, words = INFOS[case]
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, len(infos), 0) + b"".join(infos) + bytes(999))
    assert words in said(path)


def test_places_that_are_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert "is a folder" in said(tmp_path)
    assert "does not exist" in said(tmp_path / "absent.gguf")
    assert "cannot be opened" in said(Path(f"{tmp_path}/a\0b.gguf"))
    pipe = tmp_path / "pipe.gguf"
    os.mkfifo(pipe)
    assert "is not a regular file" in said(pipe)
    secret = tmp_path / "secret.gguf"
    secret.write_bytes(b"GGUF")
    real_open = Path.open

    def refuse(path: Path, *args: object, **kwargs: object) -> object:
        if path == secret:
            raise PermissionError(13, "Permission denied")
        return real_open(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)  # root may open anything
    assert "Permission denied" in said(secret)


# --- split models and other sources ------------------------------------------------------------


def write_split(folder: Path, n_parts: int = 3, total: int | None = None) -> list[Path]:
    """A model of one tensor a part."""
    names = part_names(f"m-00001-of-{n_parts:05d}.gguf", n_parts) or []
    for part, name in enumerate(names):
        values = {
            "split.no": Typed(ValueType.UINT16, part),
            "split.count": Typed(ValueType.UINT16, n_parts),
            "split.tensors.count": Typed(ValueType.INT32, n_parts if total is None else total),
        }
        first = {"general.architecture": "llama"} if part == 0 else {}
        write_gguf(folder / name, first | values, [zeros(f"t{part}", (8 * (part + 1),))])
    return [folder / name for name in names]


def test_split_model_is_one(tmp_path: Path):
    """It is the same whichever part is named, and `name` is what libllama must be given."""
    paths = write_split(tmp_path)
    for path in paths:
        header = read_header(path)
        assert header.name == str(paths[0])
        assert header.architecture == "llama"
        assert [(t.name, t.part, t.n_elements) for t in header.tensors] == [
            ("t0", 0, 8),
            ("t1", 1, 16),
            ("t2", 2, 24),
        ]
        assert [part.name for part in header.parts] == [str(path) for path in paths]


def test_split_model_with_something_wrong(tmp_path: Path):
    first, second, third = write_split(tmp_path)
    content = second.read_bytes()
    second.unlink()
    assert f"{second} does not exist" in said(first)
    second.write_bytes(content[:-4])
    with pytest.raises(ModelError, match=f"{second} is 4 bytes short"):
        read_header(first)
    second.write_bytes(third.read_bytes())
    with pytest.raises(ModelError, match=r"says that it is part 2 of 3 .* where 1 of 3 belongs"):
        read_header(first)
    second.write_bytes(content)
    renamed = first.rename(tmp_path / "renamed.gguf")
    assert "is one of 3 parts but is not named" in said(renamed)
    write_split(tmp_path, total=4)
    assert "have 3 tensors with 3 names where 4 belong" in said(first)


class Remote:
    """Bytes of unknown number that come in small pieces, as from a server."""

    def __init__(self, content: bytes) -> None:
        self.name, self.size_bytes, self.reads = "hf:o/r/m.gguf", None, 0
        self._content = content

    def read(self, offset: int, n_bytes: int) -> bytes:
        self.reads += 1
        return self._content[offset : offset + min(n_bytes, 1000)]

    def sibling(self, file_name: str) -> "Remote":
        raise ModelError(f"{file_name} is not there")

    def close(self) -> None: ...


def test_any_source_of_bytes_will_do(gguf_tiny: Path):
    """Prediction reads headers over HTTP: no size is needed, and nothing after the header."""
    content = gguf_tiny.read_bytes()
    local = read_header(gguf_tiny)
    source = Remote(content[: local.parts[0].data_offset_bytes])
    remote = read_source(source)
    assert remote.metadata == local.metadata
    assert remote.tensors == local.tensors
    assert remote.name == "hf:o/r/m.gguf"
    with pytest.raises(ModelError, match=r"hf:o/r/m\.gguf ends inside its header"):
        read_source(Remote(content[:2000]))


@pytest.fixture(autouse=True)
def gguf_no_leaks() -> Iterator[None]:
    """Files must be closed whatever happened; an open one would be a ResourceWarning."""
    open_files = Path("/proc/self/fd")
    before = len(list(open_files.iterdir())) if open_files.exists() else 0
    yield
    if before:
        assert len(list(open_files.iterdir())) <= before


def test_a_header_that_is_asked_for_again_is_that_of_the_file_as_it_is(tmp_path: Path) -> None:
    """A large vocabulary is parsed once; a file that was written anew is read anew."""
    path = tmp_path / "m.gguf"
    write_random_model(path, Shape(n_embd=64, n_ff=64))
    assert read_header(path) is not read_header(path), "it may still change within a tick"
    os.utime(path, (1, 1))
    first = read_header(path)
    assert read_header(path) is first
    write_random_model(path, Shape(n_embd=64, n_ff=128))
    assert read_header(path).tensors != first.tensors
    os.utime(path, (1, 1))
    assert read_header(path).tensors != first.tensors
