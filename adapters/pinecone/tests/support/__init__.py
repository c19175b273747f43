"""What the tests of the Pinecone adapter share."""
