"""Models trained from scratch where no pretrained one is available: a small BERT, a small CLIP, their vocabularies."""
