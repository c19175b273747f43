"""Start-up with thousands of own partitions: `python bench/startup.py`; see suite/startup.py."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

# This folder must not be on the path: its files are named like packages.
sys.path[0] = str(Path(__file__).resolve().parent / "suite")

if __name__ == "__main__":
    runpy.run_module("startup", run_name="__main__")
