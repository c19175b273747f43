"""Copies of tenants from one store to another, compared row by row."""
