"""A Vulkan backend that others have built, for machines that cannot compile one.

    python scripts/_setup/module.py FOLDER

fetches the package of node-llama-cpp (MIT) that holds it, checks its bytes, and puts the two
libraries into FOLDER. The engine loads them beside its own; its self-test checks each device.
NPM_CONFIG_REGISTRY names another server of the same packages.
"""

import hashlib
import io
import os
import sys
import tarfile
import urllib.request
from pathlib import Path

PACKAGE, VERSION = "@node-llama-cpp/linux-x64-vulkan", "3.22.1"
SHA512 = (
    "6c1c6a53e24e701bb59dbe508f6cdc31c8be241c93d44f046a31ef62877235f5"
    "483e41215e1fbf1ccc11d7f053ef13f4f182b4864b3e90cf1f825111d0ff0912"
)
FILES = ("libggml-base.so", "libggml-vulkan.so")
"""ggml 0.25.1, whose interface of backends (2) is that of the engine's 0.25.3."""
LEAST_GLIBC = (2, 34)


def url() -> str:
    registry = os.environ.get("NPM_CONFIG_REGISTRY") or "https://registry.npmjs.org"
    name = PACKAGE.partition("/")[2]
    return f"{registry.rstrip('/')}/{PACKAGE}/-/{name}-{VERSION}.tgz"


def unpack(data: bytes, folder: Path) -> None:
    """Write the libraries. Raises ValueError for other bytes than those that were tried."""
    if hashlib.sha512(data).hexdigest() != SHA512:
        raise ValueError(f"{url()} does not have the expected SHA-512: nothing was installed")
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            file = archive.extractfile(member) if Path(member.name).name in FILES else None
            if file:
                (folder / Path(member.name).name).write_bytes(file.read())


def main() -> int:
    with urllib.request.urlopen(url(), timeout=120) as answer:
        unpack(answer.read(), Path(sys.argv[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
