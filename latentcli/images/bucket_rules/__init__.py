"""Gives pictures their buckets: one file for each trainer's rule, and a table of all."""
