"""Reads and writes tars of samples, and finds every half sample."""
