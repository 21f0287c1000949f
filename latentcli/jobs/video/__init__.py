"""Measures sets of clips by their features."""
