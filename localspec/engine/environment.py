"""What libraries would put into the environment while others read it, put there before them.

The C library lets one thread read a variable while another one adds one, and the reader then may
follow an address that is gone: commands died of it, seldom, because weights load in a thread while
the rest is imported. Who finds its variable set leaves the environment alone.
"""

import os

SPINS = "1000"
"""Of a thread that waits at a barrier, where nobody says otherwise.

Every layer ends in barriers, hundreds a token. By default libgomp's threads spin there for
milliseconds and so starve the thread that they wait for when other programs want the cores. Some
ten microseconds do as well on an idle machine (docs/measurements/threads.md).
"""
SET_BY_OTHERS = {"KMP_BLOCKTIME": "200", "OPENBLAS_MAIN_FREE": "1"}
"""By ggml_cpu_init of ggml-cpu.c and by NumPy's import, with these values."""


def settle_environment() -> None:
    """Set what is not set yet; before libgomp is there, which reads its variables once."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    for name, value in SET_BY_OTHERS.items():
        os.environ.setdefault(name, value)
