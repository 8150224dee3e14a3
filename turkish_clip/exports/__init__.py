"""Exports in the forms that other programs read: immich, fastembed and transformers' own classes."""
