"""Distillation: captions and their regression targets, losses, the order of the rows, and trainer callbacks."""
