"""Little is fetched twice when a download is killed ten times.

A hub on loopback serves a file of 200 MB at 150 MB/s; `localspec pull` and huggingface_hub's own
`hf_hub_download` are killed with SIGKILL at the same ten random points and then left to finish.
Counted is what the server sent, and what lies around afterwards.
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

from command import LOCALSPEC, clean_environment
from hub import Hub

REPO, FILE = "owner/repo", "model-Q4_0.gguf"
N_BYTES, N_KILLS, PACE = 200_000_000, 10, 150e6
MOST_A_KILL = 6e6
"""What a socket's buffer may hold when the process dies: Linux's default limit."""
OURS: list[str | os.PathLike[str]] = [LOCALSPEC, "pull", f"hf:{REPO}/{FILE}"]
THEIRS: list[str | os.PathLike[str]] = [
    sys.executable,
    "-c",
    f"from huggingface_hub import hf_hub_download as get; get({REPO!r}, {FILE!r})",
]


def test_what_is_on_the_disk_is_not_sent_again(tmp_path: Path) -> None:
    """Reached on 2026-11-25: 7.3 MB, where hf_hub_download takes 876.7 MB and leaves 769.7 MB.

    30.7 MB on 2026-11-28, with five programs to a core.
    """
    twice, parts = _killed(OURS, tmp_path / "ours")
    assert twice <= N_KILLS * MOST_A_KILL, f"{twice / 1e6:.1f} MB were sent twice"
    assert parts == []
    theirs, left = _killed(THEIRS, tmp_path / "theirs")
    print(
        f"sent twice: {twice / 1e6:.1f} MB, hf_hub_download {theirs / 1e6:.1f} MB and {len(left)}"
    )
    assert twice < theirs


def _killed(command: list[str | os.PathLike[str]], folder: Path) -> tuple[int, list[Path]]:
    """Bytes sent more than once, and unfinished files, after ten kills and a last try."""
    data = b"GGUF" + random.Random(0).randbytes(N_BYTES - 4)
    points = sorted(random.Random(7).sample(range(1, N_BYTES), N_KILLS))
    with Hub().running() as hub:
        hub.add(REPO, FILE, data)
        hub.pace_bytes_per_s = PACE
        environment = clean_environment() | hub.environment(folder / "hf")
        environment["LOCALSPEC_HOME"] = str(folder)
        for point in points:
            _kill_at(point, command, environment, hub)
        assert _start(command, environment).wait() == 0
        return hub.n_stored_sent - N_BYTES, list(folder.rglob("*.incomplete"))


def _start(
    command: list[str | os.PathLike[str]], environment: dict[str, str]
) -> "subprocess.Popen[bytes]":
    silent = subprocess.DEVNULL
    return subprocess.Popen(command, env=environment, stdout=silent, stderr=silent)


def _kill_at(
    point: int, command: list[str | os.PathLike[str]], environment: dict[str, str], hub: Hub
) -> None:
    """Where the file has come so far: of a request that resumes, from its beginning on."""
    n_asked = len(hub.begins)
    process = _start(command, environment)
    while process.poll() is None:
        asks = [ask for ask in hub.asked if ask.path.startswith("/storage/")][n_asked:]
        if any((ask.begin or 0) + ask.n_sent >= point for ask in asks):
            break
        time.sleep(0.002)
    process.kill()
    process.wait()
