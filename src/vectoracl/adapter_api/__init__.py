"""The contract between the core and an adapter."""
