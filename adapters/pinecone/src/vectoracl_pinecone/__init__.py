"""The Pinecone adapter of vectoracl: a namespace per tenant. Configure it with `adapter = "pinecone"`."""
