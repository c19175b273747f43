"""PostgreSQL's SQL as text: its tokens, its names, and the form of a statement."""
