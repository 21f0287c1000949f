"""Runs a model on a device: loading, batch sizes, memory that is short, self-check."""
