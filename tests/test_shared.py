"""What an engine's child process and its parent say to each other through shared memory."""

import mmap
import socket
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from localspec.engine.llama.child_engine import SharedOutput
from localspec.engine.pipe import Bell, Pipe
from localspec.engine.shared import MOST_WORDS, PAGE, Asked, Backs, Shared, unnamed_memory

N_VOCAB, N_ROWS = 5000, 4
Sides = tuple[Shared, Shared, int]


@pytest.fixture
def sides() -> Iterator[Sides]:
    """The memory as each side maps it, and its file descriptor."""
    with unnamed_memory(N_ROWS, N_VOCAB) as file:
        fd = file.fileno()
        yield Shared(fd, N_VOCAB), Shared(fd, N_VOCAB), fd


@pytest.mark.parametrize(
    ("backs", "asked"),
    [
        ((), [(0, [7], 1)]),
        ((), [(3, [5, 6, 7], 2)]),
        ((), [(0, [], 0)]),
        ((), [(0, list(range(500)), 1)]),
        ([(0, 12)], [(0, [7], 1)]),
        ([(0, 12), (1, 0)], [(0, [7], 1), (1, list(range(30)), 0), (2, [9, 8], 2)]),
        ([(1, 3)], []),
    ],
)
def test_a_decode_arrives_as_it_was_written(sides: Sides, backs: Backs, asked: Asked) -> None:
    parent, child, _ = sides
    assert parent.write([(1, 2)], [(0, [1, 2, 3], 1)])
    assert parent.write(backs, asked)
    there_backs, there_asked = child.read()
    assert (list(there_backs), list(there_asked)) == (list(backs), list(asked))


def test_a_long_decode_is_left_to_a_message(sides: Sides) -> None:
    assert not sides[0].write((), [(0, [1] * MOST_WORDS, 1)])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux exchanges pages")
@pytest.mark.parametrize("start", [0, 64, 1000 * 4, PAGE - 64])
def test_rows_are_seen_where_the_engine_writes_them(sides: Sides, start: int) -> None:
    """Wherever its buffer begins; what lies beside the buffer is not touched."""
    parent, child, fd = sides
    room = mmap.mmap(-1, 2 * PAGE + 4 * N_ROWS * N_VOCAB + PAGE)
    around = np.frombuffer(room, np.uint8)
    around[:] = 99
    first, n_bytes = PAGE + start, 4 * N_ROWS * N_VOCAB
    buffer = np.frombuffer(room, np.float32, N_ROWS * N_VOCAB, first).reshape(N_ROWS, N_VOCAB)
    output = SharedOutput(child, fd, may_exchange=True)
    for n_rows in (1, 1, 3, 2, N_ROWS):
        output.make_room(n_rows)
        buffer[:n_rows] = np.random.default_rng(n_rows).random((n_rows, N_VOCAB))
        output.show(buffer.ctypes.data, n_rows)
        assert np.array_equal(parent.rows[:n_rows], buffer[:n_rows])
    inside = slice(PAGE, PAGE + 4096)
    buffer.reshape(-1)[inside] = 5.0
    assert (parent.rows.reshape(-1)[inside] == 5.0).all(), "no copy is needed there"
    assert (around[:first] == 99).all()
    assert (around[first + n_bytes :] == 99).all()


def test_rows_of_memory_that_a_driver_knows_are_copied(sides: Sides) -> None:
    parent, child, fd = sides
    buffer = np.random.default_rng(1).random((2, N_VOCAB)).astype(np.float32)
    output = SharedOutput(child, fd, may_exchange=False)
    output.show(buffer.ctypes.data, 2)
    assert np.array_equal(parent.rows[:2], buffer)
    buffer[:] = 0
    assert parent.rows[:2].any(), "a copy stays as it was"
    output.copy([buffer[:1], buffer[1:]])
    assert not parent.rows[:2].any()


def test_rings_and_messages_are_heard_once_and_in_order(sides: Sides) -> None:
    """Whether they are looked for or waited for."""
    parent, child, _ = sides
    mine, theirs = socket.socketpair()
    bells = Bell(), Bell()
    here = Pipe(mine, *bells, parent.marks)
    there = Pipe(theirs, *bells[::-1], child.marks[::-1])
    try:
        for looks in (True, False):
            here.ring()
            assert not looks or there.look(1)
            assert there.recv() is None
            there.send({"a": 1})
            there.send(2)
            assert not looks or here.look(1)
            assert [here.recv(), here.recv()] == [{"a": 1}, 2]
            assert not there.look(0)
            assert not there.is_ready(0)
            assert not here.is_ready(0)
        theirs.close()
        here.sleep(5)
        with pytest.raises((EOFError, OSError)):
            here.recv()
    finally:
        here.close()
