"""Servers for tests: real ones, the network that they are shut in, and addresses that answer wrongly."""
