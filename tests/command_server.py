"""Commands in processes of their own, forked from one that has imported what all of them import.

    python command_server.py SOCKET

A request is one JSON line, {"arguments", "cwd", "environment"}, with three file descriptors for the
standard streams; the answer is the exit code. For tests without the engine: what imports it, or
reads the environment when it is imported, is left to the children.
"""

import gc
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import localspec
from localspec.cli.main import run
from localspec.errors import LocalspecError

MAX_REQUEST = 1 << 20
LEFT_OUT = ("huggingface_hub", "llama_cpp")
OTHERS = ("filelock", "httpx", "psutil", "pydantic", "rich.progress", "tqdm.auto", "yaml")


def import_all() -> None:
    """The modules of localspec that need nothing of what is left out, and others' slow ones."""
    sys.modules.update(dict.fromkeys(LEFT_OUT))
    ours = [module.name for module in walk_packages(localspec.__path__, "localspec.")]
    for name in (*OTHERS, *(name for name in ours if not name.endswith("__main__"))):
        with suppress(ImportError, LocalspecError):
            import_module(name)
    for name in LEFT_OUT:
        del sys.modules[name]


def serve(address: str) -> None:
    """Until the process is ended."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address + ".new")
        listener.listen()
        Path(address + ".new").rename(address)  # who sees it may connect
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _answer(connection)
            connection.close()
            _reap()


def _answer(connection: socket.socket) -> None:
    """In a process that waits for the command's, because that one may be killed."""
    data, files, _, _ = socket.recv_fds(connection, MAX_REQUEST, 3)
    while not data.endswith(b"\n"):
        data += connection.recv(MAX_REQUEST)
    pid = os.fork()
    if pid == 0:
        connection.close()
        _become(json.loads(data), files)
        code = run()
        sys.stderr.flush()
        os._exit(code)  # what is imported need not be taken down
    _, status = os.waitpid(pid, 0)
    connection.sendall(b"%d" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _become(request: dict[str, Any], files: list[int]) -> None:
    for target, file in enumerate(files):
        os.dup2(file, target)
        os.close(file)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = [str(Path(sys.executable).with_name("localspec")), *request["arguments"]]
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


if __name__ == "__main__":
    import_all()
    gc.freeze()
    serve(sys.argv[1])
