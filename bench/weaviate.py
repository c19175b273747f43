"""The benchmarks of the Weaviate adapter on a real server: `python bench/weaviate.py [--full]`; see suite/shards.py."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

# This folder must not be on the path: this file would be taken for the package `weaviate`.
sys.path[0] = str(Path(__file__).resolve().parent / "suite")

if __name__ == "__main__":
    runpy.run_module("shards", run_name="__main__")
