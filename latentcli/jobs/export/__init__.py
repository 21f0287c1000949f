"""Writes the latents of a store in the formats of trainers, and compares what was written."""
