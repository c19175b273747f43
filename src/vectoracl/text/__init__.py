"""Text processing: files to texts, texts to chunks, to vectors and to sparse word vectors."""
