"""Parses the command line into a job, runs it, and shows its result."""
