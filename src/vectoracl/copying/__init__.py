"""Copying tenants from one store to another, with a row-by-row comparison."""
