"""General helpers: files, locks, import paths, TOML, threads."""
