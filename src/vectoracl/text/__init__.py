"""Texts: from files, into chunks, into vectors and into sparse words."""
