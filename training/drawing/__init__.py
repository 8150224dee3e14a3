"""Generators for drawing from words: a VQ-autoencoder and a decoder of image vectors, and who judges the drawings."""
