"""Distillation: captions and their , the losses, and what the trainer is told."""
