"""What the tests of the Weaviate adapter share."""
