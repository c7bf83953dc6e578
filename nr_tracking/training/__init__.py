"""Losses, schedule, trainer and checkpoints."""
