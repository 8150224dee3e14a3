"""Distillation: captions and their regression targets, the losses, and what the trainer is told."""
