"""Helpers for tests of servers: open ports, and loopback addresses with wrong answers."""
