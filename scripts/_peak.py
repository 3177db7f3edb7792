"""Peak resident memory: as a script, of one `localspec` command, on stderr's last line."""

import resource
import sys
from pathlib import Path


def peak_rss_bytes() -> int:
    """Since this program began: on Linux `getrusage` counts what was before the exec, too."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    from localspec.cli.main import run

    code = run(sys.argv[1:])
    print(peak_rss_bytes(), file=sys.stderr)
    sys.exit(code)
