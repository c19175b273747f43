"""The posture check: reads the real isolation of a table from the catalogs."""
