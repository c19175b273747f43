"""What the pgvector tests and the bench share. `conftest.py` makes it importable as `pgvector_support`."""
