"""Runs of the kit: the worker process, its output, the pool of workers, and the result."""
