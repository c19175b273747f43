"""The registry: labels, documents, holds and rules in SQL, which decide before a store ranks.

`Entry`, `LabelDefinition` and `Quarantine` are what an application names; `engine.governed_writes` and
`engine.governed_reads` are the flows, and `docs/governance.md` explains the protocol. Only `sql_registry` and what it
imports need SQLAlchemy, so that a configuration without `[registry]` loads nothing of it.
"""
