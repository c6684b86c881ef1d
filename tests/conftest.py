"""What holds for every test."""

from __future__ import annotations

from hypothesis import settings

# How long one example takes depends on what else the machine does, and is no property of the code.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
