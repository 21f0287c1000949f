"""Runs the jobs of the command line: the only package that joins all the others."""
