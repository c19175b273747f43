"""Decoders of the protocols that stores speak."""
