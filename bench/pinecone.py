"""The benchmarks of the Pinecone adapter against needledb: `python bench/pinecone.py [--full]`; see suite/needle.py."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

# This folder must not be on the path: this file would be taken for the package `pinecone`.
sys.path[0] = str(Path(__file__).resolve().parent / "suite")

if __name__ == "__main__":
    runpy.run_module("needle", run_name="__main__")
