"""`localspec worker`: lend this machine's memory and arithmetic to another one."""

import os
import socket
import threading
from typing import Annotated

import typer

from localspec.cli.output import notify
from localspec.errors import EngineError, UserError

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def worker(
    listen: Annotated[
        str, typer.Option(metavar="ADDRESS[:PORT]", help="Where other machines reach this one.")
    ] = "127.0.0.1",
    threads: Annotated[
        int | None, typer.Option(min=1, max=512, help="CPU threads. Default: physical cores.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The device, as `doctor` names it. Default: the GPU."),
    ] = None,
    trust_network: Annotated[
        bool,
        typer.Option(
            "--trust-network", help="Listen where others may reach it: they can run code here."
        ),
    ] = False,
) -> None:
    """Lend this machine to another one, which shares a model's layers out.

    localspec worker --listen 192.168.1.7 --trust-network

    localspec chat big.gguf --workers 192.168.1.7:50052
    """
    from localspec.engine.workers import Worker
    from localspec.hardware.detect import usable_cores

    address = Worker.of(listen).address
    _check(address, is_trusted=trust_network)
    n_threads, name = threads or usable_cores(), _device(device)
    notify(
        f"worker at {address} with {name}, {n_threads} threads; on the other machine:"
        f" --workers {address}; Ctrl-C ends it"
    )
    _serve(address, n_threads, name)


def _check(address: str, *, is_trusted: bool) -> None:
    """Raise UserError for an address that is taken or not to be trusted."""
    host, _, port = address.rpartition(":")
    if host not in _LOOPBACK and not is_trusted:
        raise UserError(
            f"whoever reaches {address} can run code on this machine: add --trust-network if only"
            " machines that you trust do"
        )
    try:
        with socket.create_server((host, int(port))):
            pass
    except OSError as error:
        raise UserError(f"{address} cannot be listened at: {error.strerror or error}") from error


def _device(wanted: str | None) -> str:
    """The engine's name of a device, or of the best one. UserError for one that is not there."""
    from localspec.engine.graphics import graphics

    names = [*(device.name for device in graphics()), "CPU"]
    if wanted is None:
        return names[0]
    if wanted not in names:
        raise UserError(f"no device {wanted!r}: the engine has {', '.join(names)}")
    return wanted


def _serve(address: str, n_threads: int, device: str) -> None:
    """Until Ctrl-C, which the engine's own loop would not see."""
    from localspec import paths
    from localspec.engine.llama.worker import serve

    cache = paths.cache_dir() / "worker"
    cache.mkdir(exist_ok=True)
    # ggml prints each client; stdout is for data.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    failed: list[EngineError] = []

    def run() -> None:
        try:
            serve(address, n_threads, device, cache)
        except EngineError as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.2)
    except KeyboardInterrupt:
        notify("the worker has ended")
        os._exit(0)
    raise failed[0] if failed else EngineError(f"the worker at {address} ended: see above")
