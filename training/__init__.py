"""Trains, measures and publishes a Turkish text encoder: one module per command, and the packages that they use."""
