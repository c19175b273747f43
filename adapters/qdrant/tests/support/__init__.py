"""What the tests of the Qdrant adapter share."""
