"""Image embeddings: the frozen tower's vectors of a source's images, computed once and stored with their manifest."""
