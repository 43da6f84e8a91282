"""Stages of learning in order, checkpoints, resume."""
