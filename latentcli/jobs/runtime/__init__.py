"""Serves every process of a job: signals, standard streams, progress, memory, report folders."""
