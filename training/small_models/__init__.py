"""Models trained from scratch where none can be had: a small BERT, a small CLIP, and their vocabularies."""
