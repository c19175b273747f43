"""A vectoracl adapter for DuckDB, whole: the example of the page "Write an adapter"."""
