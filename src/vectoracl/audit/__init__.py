"""Audit records: where decisions are recorded, and how records are searched."""
