"""Proofs over SQL text: what a statement can reach."""
