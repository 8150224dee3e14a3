"""Training captions with their regression targets: joined, weighted, and augmented."""
