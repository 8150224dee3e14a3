"""Distillation: losses, batches and shards, the student, the trainer's set-up and callbacks."""
