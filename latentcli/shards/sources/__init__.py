"""Expands what a user names into a sorted list of inputs, and reads their bytes."""
