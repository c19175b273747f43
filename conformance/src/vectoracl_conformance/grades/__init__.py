"""Grades of evidence beyond results: from the wire (E2) and from the engine (E3)."""
