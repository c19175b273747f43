"""Helpers without a subject of the project: files, locks, import paths, TOML, threads."""
