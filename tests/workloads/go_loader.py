"""A program that is not Go's with a library that is: it looks a name up through it once it is told to.

Owns: loading the library, the ready and go files, one JSON line. Must not know: faults, the agent.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import time
from pathlib import Path


def main() -> None:
    """Load, wait, look up, tell."""
    parser = argparse.ArgumentParser()
    parser.add_argument("library", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--ready-file", type=Path, required=True)
    parser.add_argument("--go-file", type=Path, required=True)
    chosen = parser.parse_args()
    look_up = ctypes.CDLL(str(chosen.library)).look_up
    look_up.restype = ctypes.c_char_p
    chosen.ready_file.touch()
    while not chosen.go_file.exists():
        time.sleep(0.002)
    error = look_up(chosen.name.encode()).decode()
    print(json.dumps({"name": chosen.name, "ok": not error, "error": error}))  # noqa: T201 - its account


if __name__ == "__main__":
    main()
