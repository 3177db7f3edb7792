"""Puts a script under the checkout's own Python, whatever it was started with."""

import os
import sys
from pathlib import Path

VENV = Path(__file__).resolve().parent.parent / ".venv"


def enter() -> None:
    """Start the script again in `.venv`; returns at once where it runs there already."""
    if Path(sys.prefix).resolve() == VENV:
        return
    python = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        sys.exit(f"there is no {VENV}: run scripts/setup first")
    sys.stdout.flush()
    os.execv(python, [str(python), *sys.argv])
