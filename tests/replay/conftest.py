"""Where the rules for every stream of lines are: with the tests that run the real agent."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "kernel"))
