"""Nothing adds to the environment while another thread may read it: the reader could die of it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command import LOCALSPEC, clean_environment, folder, tiny
from talking import GREEDY

WATCH = r"""
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

static void look(const char *name) {
    int n = -2;
    DIR *tasks = opendir("/proc/self/task");
    while (tasks && readdir(tasks)) n++;
    if (tasks) closedir(tasks);
    if (n > 1) fprintf(stderr, "%s changed beside %d threads\n", name, n - 1);
}

int setenv(const char *name, const char *value, int replace) {
    int (*real)(const char *, const char *, int) = dlsym(RTLD_NEXT, "setenv");
    if (replace || !getenv(name)) look(name);
    return real(name, value, replace);
}

int putenv(char *text) {
    int (*real)(char *) = dlsym(RTLD_NEXT, "putenv");
    look(text);
    return real(text);
}

int unsetenv(const char *name) {
    int (*real)(const char *) = dlsym(RTLD_NEXT, "unsetenv");
    if (getenv(name)) look(name);
    return real(name);
}
"""
PROGRAM = """
import sys
import localspec
with localspec.load(sys.argv[1], threads=1) as model:
    print(model.generate("hi", max_tokens=2).text)
"""


@pytest.fixture(scope="module")
def watch() -> Path:
    """A library that tells of each change beside other threads, from Python or from C."""
    compiler = shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("changes of the environment are watched on Linux, with a C compiler")
    source, library = folder() / "watch.c", folder() / "watch.so"
    source.write_text(WATCH)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


def watched(watch: Path) -> dict[str, str]:
    """The environment of a command that is watched and finds nothing set."""
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OPENBLAS_MAIN_FREE")
    kept = {name: value for name, value in clean_environment().items() if name not in names}
    return kept | {"LD_PRELOAD": str(watch)}


def told(watch: Path, *command: str | Path, given: bytes = b"") -> str:
    """What the watch said of a command that answered."""
    done = subprocess.run(
        command, input=given, env=watched(watch), capture_output=True, check=True, timeout=120
    )
    assert done.stdout
    return "".join(line for line in done.stderr.decode().splitlines() if " beside " in line)


def test_commands_change_nothing_beside_other_threads(watch: Path) -> None:
    asked = tiny(), *GREEDY, "-n", "4"
    assert not told(watch, LOCALSPEC, "generate", *asked, "-p", "hi")
    assert not told(watch, LOCALSPEC, "chat", *asked, "--no-save", given=b"hi\nmore\n")


def test_nor_does_the_library(watch: Path) -> None:
    assert not told(watch, sys.executable, "-c", PROGRAM, tiny())


def test_nor_does_the_server(watch: Path) -> None:
    command = [LOCALSPEC, "serve", tiny(), "--port", "0", "--threads", "1"]
    with subprocess.Popen(command, env=watched(watch), stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr
        lines = []
        for line in server.stderr:
            lines.append(line)
            if " answers at " in line:
                server.terminate()
    assert " answers at " in "".join(lines)
    assert not [line for line in lines if " beside " in line]


def test_the_watch_would_tell(watch: Path) -> None:
    program = "import os, threading as t; e = t.Event(); t.Thread(target=e.wait).start()\n"
    program += "os.environ['SOMETHING'] = '1'; e.set(); print('done')"
    assert told(watch, sys.executable, "-c", program) == "SOMETHING changed beside 1 threads"
