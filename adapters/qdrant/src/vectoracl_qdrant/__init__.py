"""The vectoracl adapter for Qdrant."""
