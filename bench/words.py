"""Measures searches by words with and without an index: `python bench/words.py`; see suite/by_words.py."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

# This folder must not be on the path: its files are named like packages.
sys.path[0] = str(Path(__file__).resolve().parent / "suite")

if __name__ == "__main__":
    runpy.run_module("by_words", run_name="__main__")
