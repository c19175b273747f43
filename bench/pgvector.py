"""The benchmarks of the pgvector adapter: `python bench/pgvector.py [--full] [--only SECTION …]`; see suite/main.py."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

# This folder must not be on the path: this file would be taken for the package `pgvector`.
sys.path[0] = str(Path(__file__).resolve().parent / "suite")

if __name__ == "__main__":
    runpy.run_module("main", run_name="__main__")
