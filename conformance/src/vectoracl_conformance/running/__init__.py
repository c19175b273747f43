"""Runs: the worker process, its output, the pool of workers, and the verdict over them."""
