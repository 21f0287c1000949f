"""Encodes and decodes in memory, and measures how close the pictures come back."""
