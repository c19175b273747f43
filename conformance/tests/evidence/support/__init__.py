"""What the tests of the evidence share. `conftest.py` makes it importable as `evidence_support`."""
