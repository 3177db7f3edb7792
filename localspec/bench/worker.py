"""The child process of one visit, so that an engine that dies takes nothing with it.

    python -m localspec.bench.worker REQUEST PARENT

REQUEST is JSON, {"case": ..., "n_samples": N}; PARENT the process without which it has no purpose.
Prints `stage SENTENCE` as it goes and `measured MEASUREMENT` in the end.
"""

import json
import os
import sys
import threading
from typing import Any

from localspec.bench.case import Case
from localspec.bench.measure import measure

WATCH_S = 0.5


def main() -> int:
    request: dict[str, Any] = json.loads(sys.argv[1])
    threading.Thread(target=_watch, args=(int(sys.argv[2]),), daemon=True).start()
    measured = measure(Case.from_json(request["case"]), request["n_samples"], _stage)
    sys.stdout.write(f"measured {json.dumps(measured.to_json())}\n")
    return 0


def _stage(sentence: str) -> None:
    sys.stdout.write(f"stage {sentence}\n")
    sys.stdout.flush()


def _watch(parent: int) -> None:
    """A parent that was killed cannot end its child, which would disturb what is measured next."""
    while os.getppid() == parent:
        threading.Event().wait(WATCH_S)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
