"""A worker on loopback, as a process that tests may kill."""

import socket
import subprocess
import time

from command import LOCALSPEC, clean_environment


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


class Running:
    """`localspec worker` on loopback. `is_quick`: its threads wait as a user's do, and not as those
    of tests, which sleep at every barrier so that others get on."""

    def __init__(self, port: int, n_threads: int = 1, *, is_quick: bool = False) -> None:
        self.address = f"127.0.0.1:{port}"
        environment = clean_environment()
        if is_quick:
            del environment["OMP_WAIT_POLICY"]
        self._process = subprocess.Popen(
            [LOCALSPEC, "worker", "--listen", self.address, "--threads", str(n_threads)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stderr
        assert self.address in self._process.stderr.readline()
        until_s = time.monotonic() + 30
        while not self._listens() and time.monotonic() < until_s:
            time.sleep(0.05)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", int(self.address[10:])), 1).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()
