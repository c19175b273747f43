"""Connections to PostgreSQL: the ports, their wire format, and what can go wrong on them."""
