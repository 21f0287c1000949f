"""Computes large pictures in parts that stay below a limit of memory, equal up to rounding."""
