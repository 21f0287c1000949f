"""Computes the slower networks with other operations: faster, and equal up to rounding."""
