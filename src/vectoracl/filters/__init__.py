"""Predicates: their nodes, validation, JSON form, reference semantics and compilation."""
