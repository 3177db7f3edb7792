"""How much is fetched twice when a download is killed ten times?

    scripts/check-resume

A hub on loopback (that of the tests) serves a file of 200 MB at 150 MB/s; `localspec pull` and
huggingface_hub's own `hf_hub_download` are killed with SIGKILL at the same ten random points and
then left to finish. Counted is what the server sent, and what lies around afterwards.
"""

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from command import LOCALSPEC, clean_environment
from hub import Hub

REPO, FILE = "owner/repo", "model-Q4_0.gguf"
N_BYTES, N_KILLS, PACE = 200_000_000, 10, 150e6
COMMANDS = {
    "localspec pull": [LOCALSPEC, "pull", f"hf:{REPO}/{FILE}"],
    "hf_hub_download": [
        sys.executable,
        "-c",
        f"from huggingface_hub import hf_hub_download as get; get({REPO!r}, {FILE!r})",
    ],
}


def main() -> None:
    data = b"GGUF" + random.Random(0).randbytes(N_BYTES - 4)
    points = sorted(random.Random(7).sample(range(1, N_BYTES), N_KILLS))
    for name, command in COMMANDS.items():
        with tempfile.TemporaryDirectory() as folder, Hub().running() as hub:
            hub.add(REPO, FILE, data)
            hub.pace_bytes_per_s = PACE
            environment = clean_environment() | hub.environment(Path(folder) / "hf")
            environment["LOCALSPEC_HOME"] = folder
            for point in points:
                _kill_at(point, command, environment, hub)
            _start(command, environment).wait()
            print(f"{name}: {_twice(hub)}; {_left(Path(folder))}", flush=True)


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


def _twice(hub: Hub) -> str:
    return f"{(hub.n_stored_sent - N_BYTES) / 1e6:,.1f} MB of {N_BYTES / 1e6:,.0f} sent twice"


def _left(folder: Path) -> str:
    parts = list(folder.rglob("*.incomplete"))
    size = sum(part.stat().st_size for part in parts)
    return f"{len(parts)} unfinished files of {size / 1e6:,.1f} MB left"


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv):
        print(__doc__)
    else:
        main()
