"""The import of an existing table."""
