"""The posture check: what the isolation of a table really is, read from the catalogs."""
